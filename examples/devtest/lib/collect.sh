# Logs: one tarball a machine, made of what the machine says of itself and of its serial console
# as the TE host captured it. Never fails the run, never hangs.
# shellcheck shell=bash

# machine_domains: lines "name domain".
machine_domains() {
    echo "seed $TE_SEED_DOMAIN"
    [ ! -f "$DEVTEST_WORK/nodes" ] || awk '{ print $1, $5 }' "$DEVTEST_WORK/nodes"
}

# console_of DOMAIN: on stdout.
console_of() {
    if [ -n "$DEVTEST_CONSOLE_COMMAND" ]; then
        # The knob is a command line, so it is split into words on purpose.
        # shellcheck disable=SC2086
        timeout "$DEVTEST_COLLECT_TIMEOUT_S" $DEVTEST_CONSOLE_COMMAND "$1"
    elif [ -n "$TOCI_LEASE" ]; then
        timeout "$DEVTEST_COLLECT_TIMEOUT_S" "$DEVTEST_TOCI" te console "$TE_NAME" "$1"
    else
        echo "not under toci lease run: no way to the TE host's consoles" >&2
        return 1
    fi
}

# collect_machine NAME DOMAIN: writes logs/NAME_logs/ and logs/NAME_logs.tar.xz.
collect_machine() {
    local dir=$DEVTEST_LOGS/$1_logs
    rm -rf "$dir"
    mkdir -p "$dir"
    console_of "$2" >"$dir/console.log" 2>"$dir/console.err" || true
    [ -s "$dir/console.err" ] || rm -f "$dir/console.err"
    if grep -q "^$1 " "$DEVTEST_WORK/known_hosts"; then
        timeout "$DEVTEST_COLLECT_TIMEOUT_S" ssh -F "$DEVTEST_WORK/ssh_config" "$1" 'sh /lib/devtest/collect.sh' \
            </dev/null 2>"$dir/collect.err" | tar -x -m -f - -C "$dir" 2>>"$dir/collect.err" || true
        [ -s "$dir/collect.err" ] || rm -f "$dir/collect.err"
    else
        echo "$1 never told its ssh host key, so nothing could be fetched from it" >"$dir/collect.err"
    fi
    XZ_OPT=-3 tar -c -J -f "$DEVTEST_LOGS/$1_logs.tar.xz" -C "$DEVTEST_LOGS" "$1_logs"
    say "logs of $1: $(du -h "$DEVTEST_LOGS/$1_logs.tar.xz" | cut -f1)$([ ! -s "$dir/collect.err" ] || echo " (not whole: $(head -n 1 "$dir/collect.err"))")"
}

# collect_all: every machine at the same time.
collect_all() {
    local name domain pid pids=()
    while read -r name domain; do
        collect_machine "$name" "$domain" &
        pids+=($!)
    done < <(machine_domains)
    for pid in "${pids[@]}"; do wait "$pid" || true; done
}

# show_consoles: the last words of machines that did not report in, as far as they were ever on.
show_consoles() {
    local name console
    while read -r name _; do
        console=$DEVTEST_LOGS/${name}_logs/console.log
        if [ ! -f "$DEVTEST_WORK/report-$name" ] && [ -s "$console" ]; then
            say "the end of the console of $name:"
            tail -n 8 "$console" | tr -cd '[:print:]\n' | say_lines '    '
        fi
    done < <(machine_domains)
}

# write_result CODE STAGE: the run in one JSON file for programs.
write_result() {
    local reports=() file
    for file in "$DEVTEST_WORK"/report-*; do [ ! -f "$file" ] || reports+=("$file"); done
    jq -n --argjson code "$1" --arg stage "$2" --arg lease "$TOCI_LEASE" \
        --arg testenv "${TE_NAME:-}" \
        --rawfile repos <(cat "$DEVTEST_WORK/repos" 2>/dev/null || true) \
        --rawfile perf <(cat "$DEVTEST_LOGS/devtest_perf.log" 2>/dev/null || true) \
        --rawfile smoke <(cat "$DEVTEST_LOGS/smoke.txt" 2>/dev/null || true) \
        --rawfile reports <(for file in "${reports[@]}"; do cat "$file"; echo; done) '
        def lines: split("\n") | map(select(length > 0));
        { ok: ($code == 0), exit_code: $code, stop_after: $stage, lease: $lease, testenv: $testenv,
          repositories: ($repos | lines | map(split(" ") | { name: .[0], revision: .[1], tree_sha256: .[2] })),
          stages: ($perf | lines | map(split(" ") | { stage: .[1], seconds: (.[2] | tonumber), exit_code: (.[3] | tonumber) })),
          smoke: ($smoke | lines | map(select(startswith("page ") | not))),
          machines: ($reports | split("\n\n") | map(lines | select(length > 0)
            | reduce .[] as $l ({ ran: [] };
                ($l | split(" ")) as $w
                | if $w[0] == "repo" then .ran += [{ name: $w[1], revision: $w[2], tree_sha256: $w[3], hook_exit: $w[4] }]
                  else .[$w[0]] = ($w[1:] | join(" ")) end)))
        }' >"$DEVTEST_LOGS/result.json"
}
