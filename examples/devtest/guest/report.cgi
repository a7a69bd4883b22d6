#!/bin/sh
# Takes a report of a node: POST /cgi-bin/report?name=NAME&stage=STAGE with a text of at most 64 KiB.
REPORTS=/run/reports
NODES=/etc/devtest/deploy/nodes
MAX_BYTES=65536

refuse() {
    printf 'Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\n%s\n' "$1"
    exit 0
}

name=$(echo "$QUERY_STRING" | sed -n 's/^name=\([a-z0-9-]*\)&stage=[a-z]*$/\1/p')
stage=$(echo "$QUERY_STRING" | sed -n 's/^name=[a-z0-9-]*&stage=\([a-z]*\)$/\1/p')
case $stage in
booted | writing | deployed | up | failed) ;;
*) refuse "unknown stage" ;;
esac
# A node speaks for itself only: from the address that was given to it.
address=$(awk -v name="$name" '$1 == name { print $4 }' "$NODES" 2>/dev/null)
[ -n "$address" ] || refuse "no such node"
[ "$REMOTE_ADDR" = "$address" ] || refuse "not from the address of $name"
head -c "$MAX_BYTES" >"$REPORTS/.$name.$stage.$$" && mv "$REPORTS/.$name.$stage.$$" "$REPORTS/$name.$stage"
printf 'Content-Type: text/plain\r\n\r\ntaken\n'
