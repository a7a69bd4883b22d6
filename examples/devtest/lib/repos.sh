# The repositories under test, by diskimage-builder's convention: DIB_REPOLOCATION_<name> says
# where one is, DIB_REPOREF_<name> which revision is wanted.
# shellcheck shell=bash

REPOS_MAX_MIB=48

# set_dib_variables: as toci_devtest.sh did it, for every /opt/stack/new/*/.git when the job named
# none. The revision is resolved here, to a commit id: a detached HEAD once meant that the image
# got master instead (bug 1364345).
set_dib_variables() {
    [ -z "$(compgen -v DIB_REPOLOCATION_ || true)" ] || return 0
    local git_dir dir name
    for git_dir in "$DEVTEST_STACK_NEW"/*/.git; do
        [ -e "$git_dir" ] || continue
        dir=${git_dir%/.git}
        name=$(basename "$dir" | tr -c 'A-Za-z0-9\n' _)
        [ -z "$(compgen -v "DIB_REPOLOCATION_$name" | grep -x "DIB_REPOLOCATION_$name" || true)" ] ||
            refuse "two repositories below $DEVTEST_STACK_NEW come to DIB_REPOLOCATION_$name; one of them is $dir"
        export "DIB_REPOLOCATION_$name=$dir" "DIB_REPOREF_$name=$(git -C "$dir" rev-parse HEAD)"
    done
    [ -z "$(compgen -v DIB_REPOLOCATION_ || true)" ] || return 0
    make_sample_repo
    export DIB_REPOLOCATION_sample_project=$DEVTEST_WORK/sample-project DIB_REPOREF_sample_project=HEAD
}

# make_sample_repo: a repository of one commit, always with the same id for the same files.
make_sample_repo() {
    local repo=$DEVTEST_WORK/sample-project
    [ ! -d "$repo/.git" ] || return 0
    cp -r "$DEVTEST_SAMPLE_REPO" "$repo"
    (
        cd "$repo" || exit 1
        export GIT_AUTHOR_NAME=devtest GIT_AUTHOR_EMAIL=devtest@localhost GIT_AUTHOR_DATE='2014-11-01T00:00:00Z'
        export GIT_COMMITTER_NAME=devtest GIT_COMMITTER_EMAIL=devtest@localhost GIT_COMMITTER_DATE='2014-11-01T00:00:00Z'
        git -c init.defaultBranch=master init -q
        git add -A
        git -c commit.gpgsign=false commit -q -m 'Sample project'
    )
}

# export_repos: writes DEVTEST_WORK/repos (lines "name revision digest") and the trees at those
# revisions below DEVTEST_WORK/repos.d, as they will lie in the images.
export_repos() {
    set_dib_variables
    local out=$DEVTEST_WORK/repos.d variable short location ref name sha
    rm -rf "$out"
    mkdir -p "$out"
    : >"$DEVTEST_WORK/repos"
    while read -r variable; do
        short=${variable#DIB_REPOLOCATION_} location=${!variable} ref=DIB_REPOREF_$short
        ref=${!ref:-HEAD}
        name=$(basename "$location" .git | tr -c 'A-Za-z0-9._\n-' _)
        [ ! -e "$out/$name" ] || refuse "two repositories are called $name"
        if [ ! -d "$location" ]; then
            fetch_repo "$location" "$ref" "$DEVTEST_WORK/fetched-$name"
            location=$DEVTEST_WORK/fetched-$name ref=FETCH_HEAD
        fi
        sha=$(git -C "$location" rev-parse --verify -q "$ref^{commit}") ||
            refuse "$variable: $location has no revision $ref"
        mkdir "$out/$name"
        git -C "$location" archive "$sha" | tar -x -C "$out/$name"
        echo "$sha" >"$out/$name.revision"
        echo "$name $sha $(tree_digest "$out/$name")" >>"$DEVTEST_WORK/repos"
    done < <(compgen -v DIB_REPOLOCATION_)
    local mib
    mib=$(du -sm "$out" | cut -f1)
    [ "$mib" -le "$REPOS_MAX_MIB" ] || refuse "the repositories under test have $mib MiB; the machines only have room for $REPOS_MAX_MIB"
    hooks_exist "$out"
}

# fetch_repo URL REF INTO: a failed fetch is an error, never "no such revision".
fetch_repo() {
    git init -q --bare "$3"
    git -C "$3" fetch -q --depth=1 "$1" "$2" || fail "could not fetch $2 from $1"
}

# hooks_exist DIR: every stage that will run must run something of the code under test; better said now than after a deployment.
hooks_exist() {
    local role
    for role in seed undercloud overcloud; do
        compgen -G "$1/*/hooks/$role" >/dev/null ||
            refuse "none of the repositories under test has hooks/$role, so nothing of theirs would run on the $role"
    done
}

# tree_digest DIR: the same command runs on the machines (guest/common.sh).
tree_digest() {
    (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
}
