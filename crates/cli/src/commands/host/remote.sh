#!/bin/bash
# Runs on a TE host, as root, over SSH: `toci host deploy|upgrade|rollback|remove` send it as a whole with one verb each
# time. What it puts on the machine it writes into $list first, so that `remove` takes away that and nothing else.
#
# Versions lie side by side in /usr/local/lib/toci/VERSION; `current` leads to the one that is started, `previous` to
# the one before it. /usr/local/sbin/toci-host goes through `current`, so a change of version is one rename.
set -euo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

top=/usr/local/lib/toci
program=/usr/local/sbin/toci-host
config=/etc/toci/toci-host.toml
unit=/etc/systemd/system/toci-host.service
keeper=$top/keep
pid_file=/run/toci-host.pid
log=/var/log/toci-host.log
list=$top/deployed
# How long a version has to serve well before it is trusted, seconds.
PROOF_S=3
# How long the old agent may take to make way before it is ended, seconds: it waits for commands of leases first.
MAKE_WAY_S=75
# The machine ended the new version and went back to the one before; or could not; see switch.
WENT_BACK=10
NOT_WELL=11
# Of the configuration; see settings.
state=
mode=

has_systemd() { [ -d /run/systemd/system ]; }

# --- what we put here ---------------------------------------------------------------------------

# `file`, `tree` (a folder with all that is in it), `inside` (what is in a folder, but not itself) or `empty` (a folder,
# if it is empty).
note() {
    mkdir -p "$top"
    grep -qsxF "$1 $2" "$list" || echo "$1 $2" >>"$list"
}

our_folder() { # PATH: made by us, unless it is there
    [ -d "$1" ] || { note empty "$1"; mkdir -p "$1"; }
}

our_state() { # PATH
    if [ ! -d "$1" ]; then note tree "$1"
    elif [ -z "$(ls -A "$1")" ]; then note inside "$1"
    fi
    mkdir -p "$1"
}

write() { # PATH MODE: from standard input, whole or not at all, also when the power is cut afterwards
    note file "$1"
    (umask 077; cat >"$1.part")
    chmod "$2" "$1.part"
    sync "$1.part"
    mv -T "$1.part" "$1"
}

point() { # NAME VERSION
    ln -sfnT "$2" "$top/$1.new"
    mv -T "$top/$1.new" "$top/$1"
}

version_of() { readlink "$top/$1" 2>/dev/null || true; }

# --- the service --------------------------------------------------------------------------------

keeper_pid() { # of our keeper's process, if it lives
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    [ -n "$pid" ] && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$keeper" && echo "$pid"
}

is_running() {
    if has_systemd; then
        case $(systemctl is-active toci-host 2>/dev/null) in active | activating | reloading) ;; *) return 1 ;; esac
    else
        keeper_pid >/dev/null
    fi
}

start() {
    if has_systemd; then
        systemctl daemon-reload
        systemctl --quiet enable toci-host
        systemctl reset-failed toci-host 2>/dev/null || true
        systemctl start toci-host
    else
        note file "$pid_file"
        note file "$log"
        note file "$log.1"
        # What `switch` does not listen to, the host has to.
        (trap - HUP PIPE; exec setsid bash "$keeper") </dev/null >>"$log" 2>&1 &
        echo $! >"$pid_file"
    fi
}

stop() {
    local pid
    if has_systemd; then
        systemctl --quiet disable --now toci-host 2>/dev/null || true
    elif pid=$(keeper_pid); then
        kill -TERM "$pid"
        local until=$((SECONDS + 60))
        while [ -d "/proc/$pid" ] && [ $SECONDS -lt $until ]; do sleep 0.1; done
        [ ! -d "/proc/$pid" ] || { echo "process $pid does not end" >&2; return 1; }
        rm -f "$pid_file"
    fi
}

# The agent makes way for the version that `current` leads to. A second time: it is ended if it has not.
make_way() {
    local pid
    if has_systemd; then
        # While it crashes again and again there may be none to tell: the next one to start is `current` anyway.
        systemctl kill --kill-who=main --signal=USR2 toci-host 2>/dev/null || true
    else
        pid=$(keeper_pid) && kill -USR2 "$pid"
    fi
}

last_words() {
    if has_systemd; then
        journalctl --unit toci-host --lines 15 --output cat --no-pager 2>/dev/null || true
    else
        tail -n 15 "$log" 2>/dev/null || true
    fi
}

well_version() { # the version that serves well, if one does
    sed -n "s|.*\"program\":\"$top/\\([^/\"]*\\)/toci-host\".*|\\1|p" "$state/agent.json" 2>/dev/null || true
}

is_well() { # VERSION
    [ "$(well_version)" = "$1" ]
}

# VERSION SECONDS: serves well, and goes on to for PROOF_S.
becomes_well() {
    local until=$((SECONDS + $2)) mark
    while [ $SECONDS -lt $until ]; do
        if is_well "$1"; then
            mark=$(stat -c '%i %y' "$state/agent.json" 2>/dev/null || true)
            sleep $PROOF_S
            if is_running && is_well "$1" && [ "$mark" = "$(stat -c '%i %y' "$state/agent.json" 2>/dev/null)" ]; then
                return 0
            fi
        fi
        is_running || return 1
        sleep 0.3
    done
    return 1
}

# --- verbs --------------------------------------------------------------------------------------

hex() { od -An -v -tx1 "$1" | tr -d ' \n'; }

# PROGRAM CONFIG: says what `state` and `mode` are in it.
settings() {
    local said
    said=$("$1" check --config "$2") || return 2
    mode=$(sed -n 's/.*: mode \([a-z]*\), state .*/\1/p' <<<"$said")
    state=${said#*, state }
}

is_whole() { # PROGRAM: its folder's name ends in the begin of its SHA-256
    local folder
    folder=$(dirname "$1")
    [ -f "$1" ] && case $(sha256sum <"$1") in "${folder##*-}"*) ;; *) false ;; esac
}

facts() { # STATE PACKAGES…: the state folder is that of the configuration, if there is one
    local folder there package version
    state=$1
    shift
    if [ -x "$program" ] && [ -f "$config" ]; then settings "$program" "$config" 2>/dev/null || true; fi
    # shellcheck disable=SC1091
    (. /etc/os-release && echo "distribution ${ID:-}" && echo "release ${VERSION_ID:-}")
    echo "state $state"
    echo "arch $(uname -m)"
    echo "uid $(id -u)"
    awk '/^MemTotal:/ { print "memory_mib", int($2 / 1024) }' /proc/meminfo
    echo "cpus $(nproc)"
    folder=$state
    until [ -d "$folder" ]; do folder=$(dirname "$folder"); done
    echo "disk_free_mib $(df -Pm "$folder" | awk 'NR == 2 { print $4 }')"
    if has_systemd; then echo "services systemd"; else echo "services none"; fi
    # One question for all: each costs a process, and machines may be slow.
    # shellcheck disable=SC2016
    there=$(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
    for package; do
        case $'\n'$there$'\n' in *$'\n'"installed $package"$'\n'*) ;; *) echo "missing $package" ;; esac
    done
    for version in "$top"/*/toci-host; do
        [ -L "$(dirname "$version")" ] || ! is_whole "$version" || echo "installed $(basename "$(dirname "$version")")"
    done
    echo "current $(version_of current)"
    echo "previous $(version_of previous)"
    if [ -s "$state/credential" ]; then echo "credential yes"; else echo "credential no"; fi
    if is_running; then
        echo "standing running"
        echo "well $(well_version)"
    elif [ -e "$state/lock" ] && ! flock --nonblock "$state/lock" true; then
        echo "standing foreign"
    else
        echo "standing stopped"
    fi
    [ ! -f "$config" ] || echo "config $(hex "$config")"
    if has_systemd; then version=$unit; else version=$keeper; fi
    [ ! -f "$version" ] || echo "service $(hex "$version")"
}

packages() { # NAMES…
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -q --yes --no-install-recommends -o Dpkg::Options::=--force-confold install "$@"
}

program() { # VERSION SHA256 TOCI_VERSION: the file comes on standard input
    our_folder "$top"
    note tree "$top/$1"
    rm -rf "${top:?}/.$1"
    note tree "$top/.$1"
    mkdir "$top/.$1"
    # What does not get through the checks does not stay.
    new=$top/.$1
    trap 'rm -rf "$new"' EXIT
    cat >"$top/.$1/toci-host"
    chmod 755 "$top/.$1/toci-host"
    echo "$2  $top/.$1/toci-host" | sha256sum --check --status || { echo "the program came damaged" >&2; exit 1; }
    local said
    said=$("$top/.$1/toci-host" --version) || { echo "the program does not run here (see above)" >&2; exit 1; }
    [ "$said" = "toci-host $3" ] || { echo "the program says that it is \"$said\", not \"toci-host $3\"" >&2; exit 1; }
    # Before anything leads to it: a power cut within half a minute left a part of it otherwise, and nothing that would start.
    sync "$top/.$1/toci-host"
    rm -rf "${top:?}/$1"
    mv -T "$top/.$1" "$top/$1"
}

configure() { # VERSION: the text comes on standard input; it is used by `switch`
    our_folder /etc/toci
    note file "$config"
    note file "$config.before"
    write "$config.new" 600
    settings "$top/$1/toci-host" "$config.new" || { rm -f "$config.new"; exit 2; }
    our_state "$state"
}

enrol() { # VERSION new|same: the one-time token comes on standard input, and touches no file
    local text=$config
    [ "$2" = same ] || text=$config.new
    "$top/$1/toci-host" enrol --config "$text" --token-file /dev/stdin
}

service() { # the text comes on standard input
    if has_systemd; then
        write "$unit" 644
        systemctl daemon-reload
    else
        write "$keeper" 755
    fi
}

take_config() {
    rm -f "$config.before"
    [ ! -f "$config" ] || cp -p "$config" "$config.before"
    mv -T "$config.new" "$config"
}

prune() { # versions that are neither `current` nor `previous`
    local folder version
    for folder in "$top"/*/; do
        folder=${folder%/}
        version=$(basename "$folder")
        [ -L "$folder" ] || [ ! -f "$folder/toci-host" ] || [ "$version" = "$(version_of current)" ] ||
            [ "$version" = "$(version_of previous)" ] || rm -rf "$folder"
    done
}

# VERSION HOW SECONDS new|same: from now on VERSION is what runs, HOW (start, hand_over, restart) says how it comes to,
# with the new configuration or the one that is there. When it does not serve well within SECONDS, what was before is put
# back.
switch() {
    local version=$1 how=$2 limit=$3 old before has_config=no
    [ -x "$top/$version/toci-host" ] || { echo "version $version is not there" >&2; exit 1; }
    old=$(version_of current)
    before=$(version_of previous)
    # The way back is gone on to its end, also when nobody listens any more.
    trap '' HUP PIPE
    note file "$program"
    note file "$top/current"
    note file "$top/previous"
    # A version that refuses the configuration disturbs nothing.
    if [ "$4" = new ] && [ -f "$config.new" ]; then
        settings "$top/$version/toci-host" "$config.new" || exit 2
        has_config=yes
        take_config
    else
        settings "$top/$version/toci-host" "$config" || exit 2
    fi
    [ -z "$old" ] || [ "$old" = "$version" ] || point previous "$old"
    point current "$version"
    ln -sfnT "$top/current/toci-host" "$program"
    bring_up "$how"
    if becomes_well "$version" "$limit"; then
        prune
        echo "version $version serves"
        return 0
    fi
    echo "version $version did not serve well within $limit s; its last words:" >&2
    last_words >&2
    if [ "$has_config" = yes ] && [ -f "$config.before" ]; then
        mv -T "$config.before" "$config"
        settings "$top/$version/toci-host" "$config" || true
    fi
    if [ -z "$old" ]; then
        stop
        rm -f "$top/current" "$program"
        exit $NOT_WELL
    fi
    point current "$old"
    if [ -n "$before" ]; then point previous "$before"; elif [ "$old" != "$version" ]; then rm -f "$top/previous"; fi
    go_back "$old" "$limit" "$how"
}

bring_up() { # HOW
    if ! is_running; then
        rm -f "$state/agent.json"
        start
        return
    fi
    case $1 in
        hand_over)
            rm -f "$state/agent.json"
            make_way
            # The successor's time begins when the old agent says that it goes (or the successor is there already).
            local until=$((SECONDS + MAKE_WAY_S))
            while [ ! -e "$state/agent.json" ] && [ $SECONDS -lt $until ] && is_running; do sleep 0.2; done
            [ -e "$state/agent.json" ] || ! is_running || make_way
            ;;
        restart)
            stop
            rm -f "$state/agent.json"
            start
            ;;
        *) start ;;
    esac
}

go_back() { # VERSION SECONDS HOW
    rm -f "$state/agent.json"
    if ! is_running; then
        start
    elif [ "$mode" = host ] || [ "$3" = restart ]; then
        # In host mode the agent is the service; machines are not in it.
        stop
        start
    else
        make_way
        # A crash may have made way already; one that hangs has to be told twice.
        becomes_well "$1" 10 || make_way
    fi
    if becomes_well "$1" "$2"; then
        echo "version $1 serves again" >&2
        exit $WENT_BACK
    fi
    echo "version $1 does not serve well either; its last words:" >&2
    last_words >&2
    exit $NOT_WELL
}

remove() {
    stop
    state=
    if [ -x "$program" ] && [ -f "$config" ] && settings "$program" "$config" && [ "$mode" = host ]; then
        "$program" destroy --config "$config"
    fi
    [ -f "$list" ] || { echo "nothing here was put here by toci"; return 0; }
    local kind path
    tac "$list" | while read -r kind path; do
        case $kind in
            file) rm -f "$path" "$path.part" ;;
            tree) rm -rf "$path" ;;
            inside) find "$path" -mindepth 1 -delete ;;
            empty) [ "$path" = "$top" ] || rmdir --ignore-fail-on-non-empty "$path" 2>/dev/null || true ;;
        esac
    done
    local has_top=no
    ! grep -qxF "empty $top" "$list" || has_top=yes
    rm -f "$list"
    [ "$has_top" = no ] || rmdir --ignore-fail-on-non-empty "$top"
    if has_systemd; then systemctl daemon-reload; fi
    [ ! -d "$state" ] || [ -z "$(ls -A "$state")" ] || echo "$state was there before and is left: it is yours"
}

verb=$1
shift
case $verb in
    facts | packages | program | configure | enrol | service | switch | remove) "$verb" "$@" ;;
    *) echo "no such verb: $verb" >&2; exit 1 ;;
esac
