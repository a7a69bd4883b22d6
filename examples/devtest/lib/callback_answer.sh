#!/bin/bash
# Run by nc for each connection to the callback port: takes one line, and answers OK when it comes
# from the seed that we built (its image id is a random number that only our image contains).
# Someone else's connection, or a silent one, disturbs nobody.
set -u
IFS= read -r -t 10 -n 256 line || exit 0
case $line in
"SEED_IMAGE_ID=$SEED_IMAGE_ID "*)
    echo OK
    printf '%s\n' "$line" >"$DEVTEST_WORK/callback.$$" && mv "$DEVTEST_WORK/callback.$$" "$DEVTEST_WORK/callback"
    ;;
*) echo 'NOT MINE' ;;
esac
