#!/usr/bin/env bash
# A real SLURM of one node for the tests, all of it below one folder:
#
#   tests/slurm/cluster.sh start FOLDER   # then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm/cluster.sh stop FOLDER
#
# It has its own munge key, socket and ports, so that it meets no other SLURM of the machine.
# Missing packages are installed where root has apt-get. Where there can be no SLURM it ends with
# status 3 and the reason as the last line.
set -euo pipefail

cannot() {
  echo "no SLURM here: $1" >&2
  exit 3
}

install_packages() {
  [ "$(id -u)" = 0 ] || cannot "only root can start its daemons"
  command -v slurmctld slurmd munged srun >/dev/null && return
  command -v apt-get >/dev/null || cannot "the packages slurm-wlm and munge are missing, and so is apt-get"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } \
    >install.log 2>&1 || cannot "apt-get cannot install slurm-wlm and munge ($(tail -n 1 install.log))"
}

configure() {
  local host ports
  host=$(hostname -s)
  ports=($(python3 -c '
import socket
found = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in found))'))
  (umask 077 && head -c 128 /dev/urandom >munge.key)
  mkdir -p state spool
  cat >slurm.conf <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=root
# A requeued job waits until its credentials have expired: seconds instead of two minutes.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
SchedulerParameters=sched_interval=1,sched_min_interval=0
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
# No cgroups: a container seldom lets one make any.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU # several jobs at a time on the one node
ReturnToService=2
SlurmdParameters=config_overrides # the four CPUs below whatever the machine has
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=4096
PartitionName=tests Nodes=$host Default=YES
CONF
}

start() {
  install_packages
  configure
  export SLURM_CONF=$folder/slurm.conf
  # --force: the folder of a test is closed to other users, which munged would not have.
  munged --force --key-file=munge.key --socket=munge.socket --pid-file=munged.pid \
    --log-file=munged.log --seed-file=munged.seed 2>>munged.err ||
    cannot "munged does not start ($(tail -n 1 munged.err))"
  if slurmctld -c && slurmd; then
    for _ in $(seq 150); do
      [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && return
      sleep 0.2
    done
  fi
  stop
  cannot "its node does not come up: $(tail -qn 1 slurmctld.log slurmd.log 2>/dev/null | tr '\n' ' ')"
}

stop() {
  local daemon pid
  SLURM_CONF=$folder/slurm.conf scancel --user=root 2>/dev/null || true
  for daemon in slurmd slurmctld munged; do
    [ -s "$daemon.pid" ] || continue
    pid=$(cat "$daemon.pid")
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 100); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
  done
}

PATH=$PATH:/usr/sbin
mkdir -p "${2:?usage: cluster.sh start|stop FOLDER}"
cd "$2"
folder=$PWD
case $1 in
  start | stop) "$1" ;;
  *) echo "usage: cluster.sh start|stop FOLDER" >&2 && exit 2 ;;
esac
