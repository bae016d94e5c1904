#!/bin/sh
# Lays out the root of the image: root.sh BINARY DIRECTORY, in the image's build stage. Runs on any architecture: the libraries are
# those that the dynamic loader says.
set -eu
binary=$1 root=$2
cd "$(dirname "$0")"
here=$(pwd)
cd - >/dev/null

mkdir -p "$root"/bin "$root"/usr/bin "$root"/usr/local/bin "$root"/etc/ssl/certs "$root"/etc/meshlens "$root"/proc "$root"/sys "$root"/dev \
    "$root"/root "$root"/var/log "$root"/var/run "$root"/fluent-bit/bin "$root"/init
install -d -m 1777 "$root"/tmp "$root"/var/tmp
# A journal on disk and a socket of a user who is not root have to find a place, without a volume as well.
install -d -m 1777 "$root"/var/lib/meshlens
chmod 1777 "$root"/var/run
ln -s var/run "$root"/run

# Binaries, and the libraries that they load, under the paths where the loader looks for them.
cp "$binary" "$root"/usr/local/bin/meshlens
cp "$(command -v busybox)" "$root"/bin/busybox
for program in "$binary" "$root"/bin/busybox; do ldd "$program" 2>/dev/null || true; done \
    | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
# Name resolution: these two are loaded by name where the C library does not have them built in.
for library in libnss_dns.so.2 libnss_files.so.2; do
    path=$(find /lib /usr/lib -name "$library" 2>/dev/null | head -1)
    [ -z "$path" ] || cp -L "$path" "$root$(dirname "$(ldd "$binary" | sed -n 's/.*libc.so.6 => \(\/[^ ]*\).*/\1/p')")/"
done

# The one binary under the other names that it answers to.
for name in /fluent-bit/bin/fluent-bit /entrypoint.sh /init/fluent_bit_init_entrypoint.sh /init/fluent_bit_init_process \
    /usr/bin/curl /usr/bin/nc; do ln -s /usr/local/bin/meshlens "$root$name"; done
# A shell and its tools, for health checks and for a look inside; our own curl and nc come first in PATH.
"$root"/bin/busybox --list | grep -vxE 'nc|busybox' | while read -r applet; do ln -s busybox "$root/bin/$applet"; done
printf '#!/bin/sh\nexec /bin/sh "$@"\n' >"$root"/bin/bash
chmod 0755 "$root"/bin/bash

# Users by name: root, and one who is not.
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n' >"$root"/etc/passwd
printf 'root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n' >"$root"/etc/group
printf 'hosts: files dns\n' >"$root"/etc/nsswitch.conf
cp /etc/ssl/certs/ca-certificates.crt "$root"/etc/ssl/certs/

# Configurations and parsers under the paths that task definitions know.
cp -R "$here"/fluent-bit/. "$root"/fluent-bit/
cp -R "$here"/ecs "$root"/ecs
# The agent mounts its file here; none of ours stands in the way of the other flavour, /fluentd/etc/fluent.conf.
mkdir -p "$root"/fluent-bit/etc
ln -s ../parsers/parsers.conf "$root"/fluent-bit/etc/parsers.conf
cp "$here"/../config/service-connect.toml "$here"/../config/local.toml "$root"/etc/meshlens/
chmod -R a+rX "$root"/fluent-bit "$root"/ecs "$root"/etc
