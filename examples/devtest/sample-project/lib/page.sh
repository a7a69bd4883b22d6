# shellcheck shell=sh
# page ROLE: says who runs, on what, and how much of it.
page() {
    echo "sample-project as $1 on $(hostname), Linux $(uname -r)"
    awk '/^MemTotal/ { print "memory", int($2 / 1024), "MiB" }' /proc/meminfo
}
