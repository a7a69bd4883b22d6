#!/bin/bash
# A real Gerrit for tests and demos: loopback only, everything in one folder, no questions.
#
#   gerrit.sh fetch                         its jars, by Maven, and a site to copy, into $TOCI_CACHE/gerrit (~/.cache/toci/gerrit)
#   gerrit.sh site SITE SSH_PORT HTTP_PORT  a new site
#   gerrit.sh run SITE                      runs it until SIGTERM
#   gerrit.sh ready SITE                    waits until it answers
#   gerrit.sh project SITE NAME...          makes projects, each with a branch master
#
# In SITE: `key_admin`, `key_jenkins`, `key_dev` (users of these names; jenkins is a service user that may vote Verified
# and submit), `password_jenkins`, `known_hosts`. The administrator's password is `secret`: never open this to others.
set -euo pipefail

GERRIT=3.10.2
BOUNCY=1.78.1
PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.6.1
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=${TOCI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/toci}/gerrit/$GERRIT
JARS=$ROOT/jars
# A changed script makes a new site.
TEMPLATE=$ROOT/site-$(cat "$HERE/gerrit.sh" "$HERE/Gerrit.java" | sha256sum | cut -c1-12)

# The whole server lies in the two artifacts for authors of plugins: the plugin API, and the framework for their tests.
fetch() {
    local artifact name fresh=$ROOT/new.$$
    mkdir -p "$JARS"
    for artifact in com.google.gerrit:gerrit-plugin-api:$GERRIT com.google.gerrit:gerrit-acceptance-framework:$GERRIT \
        org.bouncycastle:bcprov-jdk18on:$BOUNCY org.bouncycastle:bcutil-jdk18on:$BOUNCY \
        org.bouncycastle:bcpg-jdk18on:$BOUNCY org.bouncycastle:bcpkix-jdk18on:$BOUNCY; do
        name=$(cut -d: -f2,3 --output-delimiter=- <<<"$artifact").jar
        [ -s "$JARS/$name" ] && continue
        echo "fetching $artifact" >&2
        # Beside its place and then moved there, so that two at once and a broken download do no harm.
        mvn --batch-mode --quiet "$PLUGIN:copy" -Dartifact="$artifact" -DoutputDirectory="$fresh" >&2
        mv "$fresh/$name" "$JARS/$name"
        rm -rf "$fresh"
    done
    [ -e "$TEMPLATE" ] || template
}

java_with() {
    exec java -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$JARS/*" "$HERE/Gerrit.java" "$@"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# A site with users and labels, made once: it takes half a minute.
template() {
    local fresh=$ROOT/site-new.$$
    echo "making a site in $TEMPLATE" >&2
    mkdir "$fresh" "$fresh/etc"
    chmod 700 "$fresh"
    configure "$fresh" "$(free_port)" "$(free_port)"
    (java_with init --batch --dev --no-auto-start --skip-plugins --skip-all-downloads -d "$fresh") >"$fresh/init.log" 2>&1 ||
        { cat "$fresh/init.log" >&2 && return 1; }
    (java_with daemon --headless --console-log -d "$fresh") >"$fresh/first.log" 2>&1 &
    DAEMON=$!
    trap 'kill "$DAEMON"; rm -rf "$ROOT/site-new.$$"' EXIT
    ready "$fresh"
    people "$fresh"
    trap - EXIT
    kill "$DAEMON"
    wait "$DAEMON" || true
    find "$fresh/logs" "$fresh/tmp" -mindepth 1 -delete
    # Somebody else may have been quicker.
    mv --no-target-directory "$fresh" "$TEMPLATE" || rm -rf "$fresh"
}

configure() { # SITE SSH_PORT HTTP_PORT
    set_to() { git config --file "$site/etc/gerrit.config" "$@"; }
    local site=$1
    set_to gerrit.basePath git
    set_to gerrit.canonicalWebUrl "http://127.0.0.1:$3/"
    set_to auth.type DEVELOPMENT_BECOME_ANY_ACCOUNT
    set_to sshd.listenAddress "127.0.0.1:$2"
    set_to httpd.listenUrl "http://127.0.0.1:$3/"
    set_to sendemail.enable false
    set_to index.changes.batchThreads 1
}

site() {
    [ -e "$TEMPLATE" ] || fetch
    mkdir -p "$1"
    cp -a "$TEMPLATE/." "$1/"
    configure "$@"
    local key
    for key in "$1"/etc/ssh_host_*_key.pub; do
        echo "[127.0.0.1]:$2 $(cut -d' ' -f1,2 "$key")"
    done >"$1/known_hosts"
}

rest() { # SITE METHOD PATH [curl's options]
    local url
    url=$(git config --file "$1/etc/gerrit.config" httpd.listenUrl)
    curl --silent --show-error --fail-with-body --max-time 60 --user admin:secret --request "$2" "${url}a/$3" "${@:4}"
}

json() { # SITE METHOD PATH BODY
    rest "$1" "$2" "$3" --header 'Content-Type: application/json' --data "$4" >/dev/null
}

ready() {
    local i
    for ((i = 0; i < 600; i++)); do
        rest "$1" GET config/server/version >/dev/null 2>&1 && return 0
        sleep 0.2
    done
    echo "Gerrit in $1 does not answer within two minutes" >&2
    return 1
}

label() { # SITE NAME VALUES MIN MAX GROUP
    json "$1" PUT "projects/All-Projects/labels/$2" "{\"function\": \"MaxWithBlock\", \"values\": $3, \"commit_message\": \"$2\"}"
    allow "$1" "label-$2" "{\"label\": \"$2\", \"rules\": {\"$6\": {\"action\": \"ALLOW\", \"min\": $4, \"max\": $5}}}"
}

allow() { # SITE PERMISSION RULES
    json "$1" POST projects/All-Projects/access "{\"add\": {\"refs/heads/*\": {\"permissions\": {\"$2\": $3}}}}"
}

people() {
    local site=$1 user services
    for user in admin jenkins dev; do
        ssh-keygen -q -t ed25519 -N '' -C "$user" -f "$site/key_$user"
    done
    rest "$site" POST accounts/self/sshkeys --header 'Content-Type: text/plain' --data-binary "@$site/key_admin.pub" >/dev/null
    for user in jenkins dev; do
        json "$site" PUT "accounts/$user" "{\"name\": \"$user\", \"email\": \"$user@example.org\",
            \"ssh_key\": \"$(cat "$site/key_$user.pub")\"}"
    done
    head -c 18 /dev/urandom | base64 >"$site/password_jenkins"
    json "$site" PUT accounts/jenkins/password.http "{\"http_password\": \"$(cat "$site/password_jenkins")\"}"
    json "$site" PUT 'groups/Service%20Users/members/jenkins' '{}'
    services=$(rest "$site" GET 'groups/Service%20Users' | tail -n +2 | jq -r .id)
    label "$site" Verified '{"-2": "Fails", "-1": "Does not work", "0": "Not tried", "+1": "Works", "+2": "Gate passed"}' -2 2 "$services"
    label "$site" Workflow '{"-1": "Work in progress", "0": "Ready", "+1": "Approved"}' -1 1 global:Registered-Users
    allow "$site" label-Code-Review '{"label": "Code-Review", "rules": {"global:Registered-Users": {"action": "ALLOW", "min": -2, "max": 2}}}'
    allow "$site" submit "{\"rules\": {\"$services\": {\"action\": \"ALLOW\"}}}"
}

project() {
    local site=$1 name
    for name in "${@:2}"; do
        json "$site" PUT "projects/${name//\//%2F}" '{"create_empty_commit": true, "branches": ["master"]}'
    done
}

case ${1-} in
    fetch) fetch ;;
    site) site "$2" "$3" "$4" ;;
    run) java_with daemon --headless --console-log -d "$2" ;;
    ready) ready "$2" ;;
    project) project "${@:2}" ;;
    *) sed -n '2,/^set/p' "$0" | grep '^#' >&2; exit 64 ;;
esac
