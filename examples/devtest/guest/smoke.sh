#!/bin/sh
# Run over ssh on the seed: pings every node and fetches its page over the private network.
# stdin: lines "name address"; stdout: one line a check, the page's text after "page NAME ".
failed=0
while read -r name address; do
    if ping -c 2 -W 5 "$address" >/run/smoke.out 2>&1; then
        echo "ok ping $name $address"
    else
        echo "FAILED ping $name $address: $(tail -n 1 /run/smoke.out)"
        failed=1
    fi
    if timeout 20 wget -q -O /run/smoke.page "http://$address/" 2>/run/smoke.out; then
        echo "ok http $name $address $(wc -c </run/smoke.page) bytes"
        sed "s/^/page $name /" /run/smoke.page
    else
        echo "FAILED http $name $address: $(cat /run/smoke.out)"
        failed=1
    fi
done
exit "$failed"
