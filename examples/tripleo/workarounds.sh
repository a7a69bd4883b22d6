# Commits that are taken out, put in or held back in the repositories under test, until somebody has repaired what made
# that necessary. Sourced by toci_devtest.sh. Entries belong into `workarounds` beside it, a line each:
#
#     temprevert PROJECT COMMIT BUG     revert the commit, unless a change under test says that it is about that bug
#     cherrypick PROJECT REF [URL]      put in what the ref holds, from the project's origin or the URL
#     pin        PROJECT COMMIT         go back to the commit, unless a change of that project is under test
# shellcheck shell=bash

# tested PROJECT: whether ZUUL_CHANGES (project:branch:ref^…) names it, by its whole or short name.
tested() {
    local change name
    local -a changes
    IFS=^ read -r -a changes <<<"${ZUUL_CHANGES:-}"
    for change in "${changes[@]}"; do
        name=${change%%:*}
        if [ "$name" = "$1" ] || [ "${name##*/}" = "$1" ]; then return 0; fi
    done
    return 1
}

in_project() { git -C "$TOCI_STACK_NEW/$1" -c user.name=toci -c user.email=toci@localhost "${@:2}"; }

temprevert() {
    local project=$1 commit=$2 bug=$3 git_dir message
    for git_dir in "$TOCI_STACK_NEW"/*/.git; do
        message=$(git -C "${git_dir%/.git}" log -1 --format=%B)
        if grep -qiE "bug.*$bug" <<<"$message"; then
            say "$project: $commit stays, a change under test is about bug $bug"
            return
        fi
    done
    say "$project: reverting $commit (bug $bug)"
    in_project "$project" revert --no-edit "$commit" || { in_project "$project" reset -q --hard; fail "$project: $commit cannot be reverted"; }
    in_project "$project" reset -q --hard
}

cherrypick() {
    local project=$1 ref=$2 url=${3:-origin}
    say "$project: putting in $ref"
    in_project "$project" fetch -q "$url" "$ref" || fail "$project: could not fetch $ref from $url"
    # It may be in already.
    in_project "$project" cherry-pick FETCH_HEAD >/dev/null || {
        say "$project: $ref does not apply, or is there already"
        in_project "$project" reset -q --hard
    }
}

pin() {
    if tested "$1"; then
        say "$1: not pinned, a change of it is under test"
        return
    fi
    say "$1: pinned at $2"
    in_project "$1" reset -q --hard "$2"
}

# apply_workarounds: those of the file, if there is one.
apply_workarounds() {
    local word project rest
    : "${TOCI_WORKAROUNDS:=$TOCI_ROOT/workarounds}"
    [ -f "$TOCI_WORKAROUNDS" ] || return 0
    while read -r word project rest; do
        case $word in
        '' | '#'*) continue ;;
        temprevert | cherrypick | pin) ;;
        *) refuse "$TOCI_WORKAROUNDS: there is no workaround $word" ;;
        esac
        [ -d "$TOCI_STACK_NEW/$project/.git" ] || refuse "$TOCI_WORKAROUNDS: $TOCI_STACK_NEW/$project is no repository"
        # Two or three words, split on purpose.
        # shellcheck disable=SC2086
        "$word" "$project" $rest </dev/null
    done <"$TOCI_WORKAROUNDS"
}
