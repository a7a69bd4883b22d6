#!/bin/bash
# service.sh start|ready|stop|pause|resume|alive NAME, or status: the cloud's services, one by one, inside of the sandbox.
# stop is a crash (SIGKILL for it and its children), pause leaves it deaf (SIGSTOP), ready waits until it does its work.
set -euo pipefail
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

SERVICES="mariadb rabbitmq ovsdb ovs-vswitchd taps virtlogd libvirtd keystone placement glance-api nova-conductor nova-scheduler
    nova-api nova-compute neutron-server neutron-l2 neutron-dhcp neutron-l3 neutron-metadata"
# What only some tests start.
MORE="cinder-api cinder-scheduler cinder-volume ironic-api ironic-conductor ironic-http redfish nova-metal neutron-metal"
# Longest wait until a service does its work, in seconds; the machine may be busy.
READY_LIMIT=300
etc=$CLOUD/etc

# wsgi NAME PORT SCRIPT: an API that runs in uwsgi. The socket's own length of the content would stand beside the API's.
wsgi() {
    exec uwsgi_python3 --plugins python3 --http-socket "127.0.0.1:$2" --wsgi-file "$3" --master --processes 1 --threads 8 --enable-threads \
        --lazy-apps --thunder-lock --buffer-size 65535 --rem-header Content-Length --add-header 'Connection: close' --die-on-term \
        --listen 100 --procname-prefix "$1 " --need-app
}

# become NAME: this process becomes the service.
become() {
    local neutron="--config-file $etc/neutron.conf"
    export TMPDIR=$CLOUD/tmp HOME=$CLOUD
    # shellcheck disable=SC2086
    case $1 in
    mariadb)
        exec mariadbd --no-defaults --user=root --datadir=$CLOUD/mysql --socket=$CLOUD/sock/mysql.sock --skip-networking \
            --pid-file=$CLOUD/sock/mysql.pid --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --innodb-flush-method=nosync \
            --innodb-log-file-size=16M --innodb-buffer-pool-size=192M --skip-log-bin --max-connections=600 --character-set-server=utf8mb3 \
            --skip-name-resolve
        ;;
    rabbitmq)
        # Debian's own start script changes to another user.
        mkdir -p $CLOUD/rabbit/{mnesia,log}
        export HOME=$CLOUD/rabbit RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 ERL_EPMD_ADDRESS=127.0.0.1 \
            RABBITMQ_MNESIA_BASE=$CLOUD/rabbit/mnesia RABBITMQ_LOG_BASE=$CLOUD/rabbit/log RABBITMQ_CONF_ENV_FILE=/dev/null \
            RABBITMQ_ENABLED_PLUGINS_FILE=$CLOUD/rabbit/plugins \
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none'
        exec /usr/lib/rabbitmq/bin/rabbitmq-server
        ;;
    ovsdb)
        [ -e $CLOUD/ovs.db ] || ovsdb-tool create $CLOUD/ovs.db /usr/share/openvswitch/vswitch.ovsschema
        exec ovsdb-server $CLOUD/ovs.db --remote=punix:/run/openvswitch/db.sock --remote=db:Open_vSwitch,Open_vSwitch,manager_options \
            --log-file=$CLOUD/log/ovsdb-server.log
        ;;
    ovs-vswitchd)
        ovs-vsctl --no-wait init
        # virtio cards send TCP with half a checksum; without this the userspace datapath passes it on, and no TCP works.
        ovs-vsctl --no-wait set open_vswitch . other_config:userspace-tso-enable=true
        exec ovs-vswitchd unix:/run/openvswitch/db.sock --unixctl=/run/openvswitch/vswitchd.ctl --log-file=$CLOUD/log/ovs-vswitchd.log
        ;;
    taps) exec "$(dirname "$0")/taps.sh" ;;
    virtlogd) exec virtlogd -p $CLOUD/sock/virtlogd.pid ;;
    libvirtd) exec libvirtd -p $CLOUD/sock/libvirtd.pid ;;
    keystone)
        export OS_KEYSTONE_CONFIG_DIR=$etc OS_KEYSTONE_CONFIG_FILES=keystone.conf
        wsgi keystone 5000 /usr/bin/keystone-wsgi-public
        ;;
    placement)
        export OS_PLACEMENT_CONFIG_DIR=$etc
        wsgi placement 8778 /usr/bin/placement-api
        ;;
    glance-api) exec glance-api --config-file $etc/glance-api.conf ;;
    cinder-*) exec "$1" --config-file $etc/cinder.conf ;;
    ironic-http) exec /usr/bin/python3 -m http.server --bind 0.0.0.0 --directory $CLOUD/metal/http 8070 ;;
    ironic-*) exec "$1" --config-file $etc/ironic.conf ;;
    redfish) PYTHONPATH=$CLOUD/images/site exec /usr/bin/python3 -c 'from sushy_tools.emulator.main import main; main()' --config $etc/redfish.conf ;;
    nova-metal) exec nova-compute --config-file $etc/nova.conf --config-file $etc/nova-metal.conf ;;
    nova-*) exec "$1" --config-file $etc/nova.conf ;;
    neutron-server) exec neutron-server $neutron --config-file $etc/ml2.ini ;;
    neutron-l2) exec neutron-openvswitch-agent $neutron --config-file $etc/ml2.ini --config-file $etc/openvswitch.ini ;;
    neutron-metal) exec ironic-neutron-agent $neutron --config-file $etc/neutron-metal.ini ;;
    neutron-*) exec "$1-agent" $neutron --config-file "$etc/${1#neutron-}.ini" ;;
    *) fail "no service is called $1; there are: $SERVICES $MORE" ;;
    esac
}

answers() { curl -s -o /dev/null --max-time 5 "http://127.0.0.1:$1/"; }
# fresh TABLE COLUMN BINARY [HOST]: the service has told its heartbeat since it was started.
fresh() {
    local since
    since=$(stat -c %Y "$CLOUD/pid/$name")
    [ "$(query "set time_zone = '+00:00'; select count(*) from $1 where \`binary\` = '$3' and host like '${4:-cloud1}%' and $2 > from_unixtime($since)")" = 1 ]
}

# has_told_all_machines: Neutron can bind ports of each of Ironic's machines.
has_told_all_machines() {
    [ "$(query "select count(*) > 0 and count(*) = (select count(*) from neutron.agents a join ironic.nodes n on a.host = n.uuid) from ironic.nodes")" = 1 ]
}

# works NAME: whether it does its work.
works() {
    case $1 in
    mariadb) query 'select 1' ;;
    rabbitmq) (exec 3<>/dev/tcp/127.0.0.1/5672) ;;
    ovsdb) ovs-vsctl --no-wait --timeout=2 show ;;
    ovs-vswitchd) ovs-appctl --timeout=2 --target=/run/openvswitch/vswitchd.ctl version ;;
    taps) is_alive taps ;;
    virtlogd) [ -S /run/libvirt/virtlogd-sock ] ;;
    libvirtd) virsh -c qemu:///system version ;;
    keystone) curl -sf --max-time 5 http://127.0.0.1:5000/v3 ;;
    placement) curl -sf --max-time 5 http://127.0.0.1:8778/ ;;
    glance-api) answers 9292 ;;
    nova-api) answers 8774 ;;
    neutron-server) answers 9696 ;;
    cinder-api) answers 8776 ;;
    cinder-*) fresh cinder.services updated_at "$1" ;;
    ironic-api) curl -sf --max-time 5 http://127.0.0.1:6385/ ;;
    ironic-conductor) [ "$(query 'select count(*) from ironic.conductors c join ironic.conductor_hardware_interfaces i on i.conductor_id = c.id where c.online and i.interface_type = "network"')" = 1 ] ;;
    ironic-http) answers 8070 ;;
    redfish) curl -sf --max-time 5 http://127.0.0.1:8001/redfish/v1/Systems ;;
    nova-metal) fresh nova.services updated_at nova-compute metal1 ;;
    nova-*) fresh nova.services updated_at "$1" ;;
    neutron-l2) fresh neutron.agents heartbeat_timestamp neutron-openvswitch-agent ;;
    neutron-metal) has_told_all_machines ;;
    neutron-*) fresh neutron.agents heartbeat_timestamp "$1-agent" ;;
    esac
}

is_alive() { [ -s "$CLOUD/pid/$1" ] && [ -d "/proc/$(cat "$CLOUD/pid/$1")" ]; }
# to_all SIGNAL NAME: the service and its children, which are its process group.
to_all() { ! is_alive "$2" || kill "-$1" -- "-$(cat "$CLOUD/pid/$2")"; }

verb=${1:-status} name=${2:-}
case $verb in
start)
    is_alive "$name" && exit 0
    setsid "$0" become "$name" </dev/null >>"$CLOUD/log/$name.out" 2>&1 &
    echo $! >"$CLOUD/pid/$name"
    ;;
become) become "$name" ;;
ready)
    # One that has ended at once is not waited for.
    works_or_ended() { ! is_alive "$name" || works "$name"; }
    wait_for $READY_LIMIT "$name" works_or_ended
    is_alive "$name" || fail "$name has ended: $CLOUD/log/$name.out"
    ;;
stop)
    to_all CONT "$name"
    to_all KILL "$name"
    gone() { ! is_alive "$name"; }
    wait_for 10 "$name is stopped" gone
    rm -f "$CLOUD/pid/$name"
    ;;
pause) to_all STOP "$name" ;;
resume) to_all CONT "$name" ;;
alive) is_alive "$name" ;;
status)
    for name in $SERVICES $MORE; do
        if is_alive "$name"; then state=$(sed -n 's/^State:\t*//p' "/proc/$(cat "$CLOUD/pid/$name")/status"); else state=down; fi
        printf '%-18s %s\n' "$name" "$state"
    done
    ;;
*) fail "usage: $0 start|ready|stop|pause|resume|alive NAME, or status" ;;
esac
