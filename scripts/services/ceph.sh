#!/usr/bin/env bash
# Starts one Ceph cluster in memory with its S3 gateway, as the user who calls. usage: ceph.sh FOLDER PORT ROOT
# PORT is the gateway's; PORT+1 and PORT+2 are the monitor's. ROOT: where the packages were unpacked, empty if installed.
set -euo pipefail
folder=$1 port=$2 root=$3
lib=$root/usr/lib/x86_64-linux-gnu
conf=$folder/ceph.conf
export CEPH_CONF=$conf
mkdir -p "$folder"/{mon,osd,rgw,run}
cat > "$conf" << END
[global]
fsid=$(cat /proc/sys/kernel/random/uuid)
mon_host=[v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]
# Without authentication the gateway hangs.
auth_cluster_required=cephx
auth_service_required=cephx
auth_client_required=cephx
keyring=$folder/keyring
osd_pool_default_size=1
osd_pool_default_min_size=1
osd_pool_default_pg_num=1
osd_pool_default_pg_autoscale_mode=off
osd_crush_chooseleaf_type=0
osd_pool_default_crush_rule=0
mon_allow_pool_size_one=true
mon_max_pg_per_osd=500
mon_data_avail_crit=1
mon_data_avail_warn=2
osd_objectstore=memstore
memstore_device_bytes=4294967296
plugin_dir=$lib/ceph
erasure_code_dir=$lib/ceph/erasure-code
osd_class_dir=$lib/rados-classes
run_dir=$folder/run
admin_socket=$folder/run/\$name.asok
pid_file=$folder/run/\$name.pid
log_file=$folder/\$name.log
mon_data=$folder/mon
osd_data=$folder/osd
rgw_data=$folder/rgw
ms_bind_ipv6=false
public_addr=127.0.0.1
cluster_addr=127.0.0.1
# Without nodelay every small answer waits 40 ms for the acknowledgement of its head.
rgw_frontends=beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw_thread_pool_size=16
rgw_gc_max_objs=8
rgw_lc_max_objs=4
rgw_objexp_hints_num_shards=4
rgw_md_log_max_shards=4
rgw_data_log_num_shards=4
rgw_dns_name=
END

ceph-authtool --create-keyring "$folder/keyring" --gen-key -n mon. --cap mon 'allow *' > /dev/null
for name in client.admin client.rgw osd.0; do
  ceph-authtool "$folder/keyring" --gen-key -n $name --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' > /dev/null
done
fsid=$(sed -n 's/^fsid=//p' "$conf")
monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]" "$folder/monmap" > /dev/null
ceph-mon --mkfs -i a --monmap "$folder/monmap" --keyring "$folder/keyring" -c "$conf"
ceph-mon -i a -c "$conf"
uuid=$(cat /proc/sys/kernel/random/uuid)
/usr/bin/python3 "$root/usr/bin/ceph" -c "$conf" osd new "$uuid" > /dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$uuid" -c "$conf"
ceph-osd -i 0 -c "$conf"
radosgw-admin -c "$conf" user create --uid=test --display-name=test --access-key=AKTEST --secret=SKTESTSKTEST > /dev/null
radosgw -n client.rgw --keyring "$folder/keyring" -c "$conf"
