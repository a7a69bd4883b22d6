#!/bin/sh
# The nodes have no way out of the private switch but the seed. The undercloud needs exactly one
# thing outside: the power gateway. In 2014 the seed masqueraded for it; here it relays that one
# port, and the ssh inside is end to end. Run by nc for every connection.
. /etc/devtest/deploy/deploy.conf
exec nc "$POWER_HOST" "$POWER_PORT"
