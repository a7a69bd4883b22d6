# What people see, and the time of each stage.
# shellcheck shell=bash

# Moment 0 of the times shown: the start of devtest.sh, or of the stage when it runs alone.
: "${DEVTEST_STARTED_MS:=$(date +%s%3N)}"
export DEVTEST_STARTED_MS

say() {
    local ms=$(($(date +%s%3N) - DEVTEST_STARTED_MS))
    printf '[%4d.%d s] %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*"
}

# refuse: the caller's fault, exit code 2. fail: the world's, exit code 1.
refuse() { say "REFUSED: $*" >&2; exit 2; }
fail() { say "FAILED: $*" >&2; exit 1; }

# say_lines PREFIX: repeats stdin line by line as it comes.
say_lines() {
    local line
    while IFS= read -r line; do say "$1$line"; done
}

# timed STAGE COMMAND...: runs it, writes its seconds to devtest_perf.log, tells them.
timed() {
    local stage=$1 start end code=0
    shift
    start=$(date +%s%3N)
    say "== $stage"
    "$@" || code=$?
    end=$(date +%s%3N)
    local s
    s=$(printf '%d.%d' $(((end - start) / 1000)) $(((end - start) % 1000 / 100)))
    printf '%s %s %s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$stage" "$s" "$code" >>"$DEVTEST_LOGS/devtest_perf.log"
    if [ "$code" = 0 ]; then say "== $stage took $s s"; else say "== $stage FAILED after $s s (exit code $code)"; fi
    return "$code"
}

# need COMMAND PACKAGE...: a missing tool is an error that names the Debian package.
need() {
    while [ $# -gt 0 ]; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || refuse "$1 is missing: apt-get install $2"
        shift 2
    done
}
