# The seed: public address by DHCP on eth0, 192.0.2.1 on eth1; calls the client back, then waits
# to be told over ssh what to deploy (deploy_nodes.sh).
# shellcheck shell=sh
. /lib/devtest/common.sh
. "$CONFIG/machine.conf" # NAME ROLE ADDRESS PREFIX CALLBACK_HOST CALLBACK_PORT SEED_IMAGE_ID

CALLBACK_ATTEMPTS=480

hostname "$NAME"
wait_until 20 "two network cards" link_exists eth1 || exit 1
until dhcp eth0; do say "no DHCP answer on eth0 (br-ctlplane) yet"; done
. /run/dhcp.eth0
# shellcheck disable=SC2154 # from the file above
say "eth0 has $ip/$mask by DHCP from $serverid"
ip link set eth1 up
ip addr add "$ADDRESS/$PREFIX" dev eth1
# The client reaches the private network through the seed (seed-route-dev of the TE JSON).
echo 1 >/proc/sys/net/ipv4/ip_forward

start_sshd
mkdir -p /boot && mount -t vfat -o ro /dev/vda1 /boot
run_hooks seed
mkdir -p /srv/www
# Kept as a file too: the client reads it over ssh.
report_text >/run/report.txt
. /lib/devtest/deployer.sh
start_http
say "seed ready"

# One-shot listener on the client, as in 2014: whoever knows the id of this image built it.
attempt=0
until printf 'SEED_IMAGE_ID=%s IP=%s UPTIME=%s\n' "$SEED_IMAGE_ID" "$ip" "$(uptime_s)" |
    nc -w 5 "$CALLBACK_HOST" "$CALLBACK_PORT" | grep -q '^OK'; do
    attempt=$((attempt + 1))
    [ "$attempt" -lt "$CALLBACK_ATTEMPTS" ] || { say "nobody took the callback"; exit 1; }
    sleep 1
done
say "callback to $CALLBACK_HOST:$CALLBACK_PORT was taken"
