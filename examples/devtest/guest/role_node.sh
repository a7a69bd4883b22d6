# A deployed node, booted from its disk: undercloud or overcloud, as its configuration partition says.
# shellcheck shell=sh
. /lib/devtest/common.sh

wait_until 20 "the configuration partition" [ -b /dev/vda2 ] || exit 1
mkdir -p "$CONFIG" /boot
tar -x -f /dev/vda2 -C "$CONFIG" || { say "no configuration on /dev/vda2"; exit 1; }
. "$CONFIG/machine.conf" # NAME ROLE ADDRESS PREFIX GATEWAY DEPLOYER
hostname "$NAME"
wait_until 20 "a network card" link_exists eth0 || exit 1
ip link set eth0 up
ip addr add "$ADDRESS/$PREFIX" dev eth0
ip route add default via "$GATEWAY"
mount -t vfat -o ro /dev/vda1 /boot
start_sshd
run_hooks "$ROLE"
if [ "$ROLE" = undercloud ]; then
    # It will deploy the others, from its own disk: the same files that it was made of.
    . /lib/devtest/deployer.sh
    start_http
else
    serve_www
fi
report_text >/run/report.txt
report "$DEPLOYER" "$NAME" up /run/report.txt
say "$NAME is up and has reported to $DEPLOYER"
