# The control variables of the two toci scripts, by their names of 2014, with their defaults. README.md has them in
# one table. Sourced.
# shellcheck shell=bash
# Variables that are set here are used by the scripts that source this.
# shellcheck disable=SC2034
shopt -s inherit_errexit
TOCI_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s toci: %s\n' "$(date -u +%H:%M:%S)" "$*"; }
# refuse: the job's configuration is wrong, exit code 2. fail: the world is, exit code 1.
refuse() { say "REFUSED: $*" >&2; exit 2; }
fail() { say "FAILED: $*" >&2; exit 1; }

# apply_jobtype: TOCI_JOBTYPE (December 2014) is a list of words with dashes that set the other variables.
apply_jobtype() {
    local word words
    IFS=- read -r -a words <<<"${TOCI_JOBTYPE:-}"
    for word in "${words[@]}"; do
        case $word in
        seed | undercloud | overcloud | vlan) TRIPLEO_TEST=$word ;;
        ha) OVERCLOUD_CONTROLSCALE=3 TRIPLEO_DEBUG=1 ;;
        nonha) OVERCLOUD_CONTROLSCALE=1 ;;
        ironic | precise | trusty | f20 | f21) say "TOCI_JOBTYPE: $word makes no difference here" ;;
        *) refuse "TOCI_JOBTYPE: there is no word $word" ;;
        esac
    done
}

# whole VARIABLE MIN MAX: its value is a whole number of this range.
whole() {
    local value=${!1}
    if ! [[ $value =~ ^[0-9]{1,6}$ ]] || [ "$value" -lt "$2" ] || [ "$value" -gt "$3" ]; then
        refuse "$1 is '$value'; it must be a whole number from $2 to $3"
    fi
}

# flag VARIABLE: 0 or 1.
flag() { whole "$1" 0 1; }

set_variables() {
    apply_jobtype
    : "${WORKSPACE:=$PWD}"
    : "${TRIPLEO_TEST:=overcloud}"
    : "${DEVSTACK_GATE_TIMEOUT:=60}"
    : "${OVERCLOUD_CONTROLSCALE:=1}"
    : "${TRIPLEO_DEBUG:=0}"
    : "${USE_IRONIC:=1}"
    : "${USE_CIRROS:=1}"
    : "${NODE_NAME:=$(hostname 2>/dev/null || echo node)}"
    : "${PIP_DEFAULT_TIMEOUT:=60}"
    : "${TOCI_DEVTEST:=$TOCI_ROOT/../devtest}"
    : "${TOCI_STACK_NEW:=/opt/stack/new}"
    : "${TOCI_REGIONS:=$TOCI_ROOT/regions.conf}"
    case $TRIPLEO_TEST in
    seed | undercloud | overcloud | vlan) ;;
    *) refuse "TRIPLEO_TEST is '$TRIPLEO_TEST'; it must be seed, undercloud, overcloud or vlan" ;;
    esac
    whole DEVSTACK_GATE_TIMEOUT 1 10080
    whole OVERCLOUD_CONTROLSCALE 1 100
    flag TRIPLEO_DEBUG
    flag USE_IRONIC
    flag USE_CIRROS
    TIMEOUT_SECS=$((DEVSTACK_GATE_TIMEOUT * 60))
    export WORKSPACE TRIPLEO_TEST DEVSTACK_GATE_TIMEOUT OVERCLOUD_CONTROLSCALE TRIPLEO_DEBUG USE_IRONIC USE_CIRROS NODE_NAME
    export PIP_DEFAULT_TIMEOUT TOCI_DEVTEST TOCI_STACK_NEW TIMEOUT_SECS DEVTEST_STACK_NEW="$TOCI_STACK_NEW"
    # It is applied: whoever sources this again does not apply it to what it has set.
    unset TOCI_JOBTYPE
    [ -x "$TOCI_DEVTEST/devtest.sh" ] || refuse "there is no devtest.sh in $TOCI_DEVTEST; set TOCI_DEVTEST to its folder"
}

# bypass_proxy: this node and the seed, at its address of 2014, are reached without the region's proxy.
bypass_proxy() {
    local address
    [ -n "${http_proxy:-}" ] || return 0
    for address in 127.0.0.1 192.0.2.1; do
        case ,${no_proxy:-}, in
        *,"$address",*) ;;
        *) no_proxy=${no_proxy:+$no_proxy,}$address ;;
        esac
    done
    export no_proxy
}

# Names that mean something, here or to those who are called. Others with these beginnings are probably mistakes.
KNOWN=' TRIPLEO_TEST TRIPLEO_DEBUG OVERCLOUD_CONTROLSCALE USE_IRONIC USE_CIRROS DEVSTACK_GATE_TIMEOUT '
# Variables of the jobs of 2014 that have no effect here, and why.
declare -A WITHOUT_EFFECT=(
    [DIB_COMMON_ELEMENTS]='the machines are made by devtest_images.sh, which knows no elements'
    [DIB_LOCAL_IMAGE]='the machines are made of Debian packages'
    [DEVSTACK_GATE_TEMPEST]='no DevStack is deployed'
    [DEVSTACK_GATE_EXERCISES]='no DevStack is deployed'
    [DEVSTACK_GATE_PROJECTS]='the repositories are set up before the job starts'
    [PYPIMIRROR]='nothing is installed with pip'
    [PIP_INDEX_URL]='nothing is installed with pip'
    [PIP_EXTRA_INDEX_URL]='nothing is installed with pip'
    [TRIPLEO_ROOT]='the scripts are taken from TOCI_DEVTEST'
)

# tell_variables: what the run is controlled by, and what was probably meant otherwise.
tell_variables() {
    local name
    say 'control variables:'
    for name in TRIPLEO_TEST OVERCLOUD_CONTROLSCALE DEVSTACK_GATE_TIMEOUT TRIPLEO_DEBUG USE_IRONIC USE_CIRROS NODE_NAME \
        GEARDSERVER http_proxy no_proxy PIP_DEFAULT_TIMEOUT TE_DATAFILE WORKSPACE LOG_PATH ZUUL_UUID ZUUL_PROJECT ZUUL_BRANCH ZUUL_REF \
        ZUUL_CHANGES $(compgen -e | grep -E '^DIB_REPO(LOCATION|REF)_' | sort); do
        [ -z "${!name:-}" ] || say "    $name=${!name}"
    done
    for name in "${!WITHOUT_EFFECT[@]}"; do
        [ -z "${!name:-}" ] || say "note: $name has no effect: ${WITHOUT_EFFECT[$name]}"
    done
    [ "$USE_IRONIC" = 1 ] || say 'note: USE_IRONIC=0 makes no difference: the gateway takes the command lines of both power drivers'
    [ "$USE_CIRROS" = 1 ] || say 'note: USE_CIRROS=0 makes no difference: the user image is always the small one'
    while read -r name; do
        case $KNOWN${!WITHOUT_EFFECT[*]}' ' in
        *" $name "*) ;;
        *) say "note: $name is not a variable of these scripts; see README.md" ;;
        esac
    done < <(compgen -e | grep -E '^(TRIPLEO|OVERCLOUD|UNDERCLOUD|USE|DEVSTACK_GATE)_' | sort)
}
