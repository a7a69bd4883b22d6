# Functions shared by all roles. Sourced by busybox sh, so POSIX only.
# shellcheck shell=sh

CONFIG=/etc/devtest
REPOS=/opt/stack/new
HOOK_TIMEOUT_S=60
REPORT_ATTEMPTS=60

uptime_s() { cut -d' ' -f1 /proc/uptime; }

say() { echo "devtest [$(uptime_s)] $*"; }

kernel_argument() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1; }

# The Debian cloud kernel has virtio as modules; this is their dependency order.
load_modules() {
    while read -r module; do
        insmod "/lib/devtest/modules.d/$module.ko" || say "module $module did not load"
    done </lib/devtest/modules
}

# wait_until SECONDS WHAT COMMAND...: a wait for a condition with a limit, never a blind sleep.
wait_until() {
    limit=$1 what=$2
    shift 2
    waited=0
    until "$@"; do
        waited=$((waited + 1))
        if [ "$waited" -ge $((limit * 5)) ]; then
            say "gave up after $limit s: $what"
            return 1
        fi
        usleep 200000
    done
}

link_exists() { [ -d "/sys/class/net/$1" ]; }

# dhcp INTERFACE: one lease; the script writes what was got to /run/dhcp.INTERFACE.
dhcp() {
    ip link set "$1" up
    udhcpc -q -n -f -t 30 -T 1 -A 1 -i "$1" -s /lib/devtest/udhcpc.sh >/var/log/devtest/udhcpc."$1".log 2>&1
}

start_sshd() {
    # -s, -g: keys only. The address of the caller is of no interest here, so no DNS (dropbear never asks).
    mkdir -p /root/.ssh /var/run
    chmod 700 /root /root/.ssh
    cp "$CONFIG/authorized_keys" /root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
    if [ ! -s "$CONFIG/host_key" ]; then
        dropbearkey -t ed25519 -f "$CONFIG/host_key" >/dev/null 2>&1
    fi
    dropbearkey -y -f "$CONFIG/host_key" | grep '^ssh-' | cut -d' ' -f1,2 >/run/host_key.pub
    dropbear -E -s -g -p 22 -r "$CONFIG/host_key" 2>/var/log/devtest/dropbear.log
}

# Digest of a tree: the same command is run over `git archive` on the client to prove equality.
tree_digest() {
    (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
}

# run_hooks ROLE: runs hooks/ROLE of every repository under test and writes one line for each to
# /run/repos: name, revision, digest of the tree as it is on this machine, exit code (or "none").
run_hooks() {
    mkdir -p /var/log/devtest/hooks /srv/www
    : >/run/repos
    for repo in "$REPOS"/*/; do
        [ -d "$repo" ] || continue
        name=$(basename "$repo")
        code=none
        if [ -f "$repo/hooks/$1" ]; then
            code=0
            (cd "$repo" && timeout "$HOOK_TIMEOUT_S" sh "./hooks/$1") \
                >"/var/log/devtest/hooks/$name.log" 2>&1 || code=$?
            say "hooks/$1 of $name: exit code $code"
        fi
        echo "$name $(cat "$REPOS/$name.revision") $(tree_digest "$repo") $code" >>/run/repos
    done
}

# What this machine tells about itself, a line a fact. NAME, ROLE, ADDRESS come from machine.conf.
# shellcheck disable=SC2153
report_text() {
    echo "name $NAME"
    echo "role $ROLE"
    echo "address $ADDRESS"
    echo "kernel $(uname -r)"
    echo "uptime_s $(uptime_s)"
    echo "booted_from $(booted_from)"
    [ ! -s /run/host_key.pub ] || echo "host_key $(cat /run/host_key.pub)"
    sed 's/^/repo /' /run/repos
}

booted_from() {
    case $(kernel_argument devtest.role) in
    deploy) echo network ;;
    *) echo disk ;;
    esac
}

# report SERVER NAME STAGE FILE: to the deployer, until it has been taken.
# (wget -T crashes in Debian's static busybox, hence timeout.)
report() {
    attempt=0
    until timeout 5 wget -q -O /dev/null --post-file "$4" "http://$1/cgi-bin/report?name=$2&stage=$3" 2>/run/report.err; do
        attempt=$((attempt + 1))
        if [ "$attempt" -ge "$REPORT_ATTEMPTS" ]; then
            say "report $3 was not taken: $(cat /run/report.err)"
            return 1
        fi
        sleep 1
    done
}

# The page that the smoke test fetches: written by the hooks of the repositories under test.
serve_www() {
    {
        echo "$NAME $ROLE"
        for log in /var/log/devtest/hooks/*.log; do
            [ ! -f "$log" ] || cat "$log"
        done
    } >/srv/www/index.html
    httpd -p "$ADDRESS:80" -h /srv/www -c /lib/devtest/httpd.conf
}
