#!/bin/bash
# databases.sh: puts the databases of a cloud in place, with its keys: schemas, service users, endpoints, tenants. They are
# made once for these versions of the packages and kept in the cache; making them takes half a minute, unpacking a second.
# Runs inside of the sandbox, before MariaDB is started.
set -euo pipefail
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

PACKAGES="keystone glance-common placement-common nova-common neutron-common cinder-common ironic-common mariadb-server"
etc=$CLOUD/etc
log=$CLOUD/log

# cache_key: whatever the content depends on.
cache_key() {
    # shellcheck disable=SC2086
    {
        dpkg-query -W -f '${Package} ${Version}\n' $PACKAGES
        cat "$HERE/databases.sh" "$HERE/tenants.py"
    } | sha256sum | cut -c1-16
}

keystone_database() {
    local keystone="keystone-manage --config-file $etc/keystone.conf" url=http://127.0.0.1:5000/v3
    $keystone db_sync
    $keystone fernet_setup --keystone-user root --keystone-group root
    $keystone credential_setup --keystone-user root --keystone-group root
    $keystone bootstrap --bootstrap-password admin --bootstrap-region-id RegionOne \
        --bootstrap-admin-url $url --bootstrap-internal-url $url --bootstrap-public-url $url
}

glance_placement_database() {
    glance-manage --config-file "$etc/glance-api.conf" db_sync
    OS_PLACEMENT_CONFIG_DIR=$etc placement-manage --config-file "$etc/placement.conf" db sync
}

nova_database() {
    local nova="nova-manage --config-file $etc/nova.conf"
    $nova api_db sync
    $nova cell_v2 map_cell0 --database_connection 'mysql+pymysql://root@localhost/nova_cell0?unix_socket=/run/cloud/sock/mysql.sock&charset=utf8'
    $nova cell_v2 create_cell --name=cell1
    $nova db sync
}

neutron_database() { neutron-db-manage --config-file "$etc/neutron.conf" --config-file "$etc/ml2.ini" upgrade head; }

cinder_database() { cinder-manage --config-file "$etc/cinder.conf" db sync; }

ironic_database() { ironic-dbsync --config-file "$etc/ironic.conf" create_schema; }

make_databases() {
    local database job jobs=''
    say "making the databases, which is done once"
    mariadb-install-db --no-defaults --user=root --datadir=$CLOUD/mysql --auth-root-authentication-method=normal --skip-test-db \
        >$log/mariadb-install.log 2>&1 || fail "mariadb-install-db: $(tail -n 3 $log/mariadb-install.log)"
    "$HERE/service.sh" start mariadb
    "$HERE/service.sh" ready mariadb
    for database in keystone glance placement nova_api nova nova_cell0 neutron cinder ironic; do
        query "create database $database character set utf8"
    done
    for database in keystone glance_placement nova neutron cinder ironic; do
        (
            set -e
            "${database}_database"
        ) >"$log/database-$database.log" 2>&1 &
        jobs="$jobs $database:$!"
    done
    for job in $jobs; do
        wait "${job#*:}" || fail "database of ${job%:*}: $(tail -n 3 "$log/database-${job%:*}.log")"
        say "database: ${job%:*}"
    done
    "$HERE/service.sh" start keystone
    "$HERE/service.sh" ready keystone
    "$HERE/tenants.py"
    say "users, endpoints, tenants"
    "$HERE/service.sh" stop keystone
    mariadb-admin --no-defaults -uroot -S $CLOUD/sock/mysql.sock shutdown
    stopped() { ! "$HERE/service.sh" alive mariadb; }
    wait_for 30 "MariaDB has written all" stopped
}

file=$TOCI_CLOUD_CACHE/databases-$(cache_key).tar.zst
if [ -s "$file" ]; then
    tar -xf "$file" -C $CLOUD
    say "databases from the cache"
    exit 0
fi
make_databases
# Written elsewhere and renamed: nothing half made is ever found. What other versions needed goes.
part=$(mktemp "$TOCI_CLOUD_CACHE/.databases.XXXXXX")
tar -c --sparse -C $CLOUD mysql keys | zstd -q -f -3 -T0 -o "$part"
rm -f "$TOCI_CLOUD_CACHE"/databases-*.tar.zst
mv "$part" "$file"
say "databases are in the cache ($(du -h "$file" | cut -f1))"
