"""The daemons of the node: what each is started with, and how one sees that it works.

Invariant: a daemon runs with the command line and configuration that this module says, or it is restarted: the revision that it carries is the
hash of both. Everything that a daemon writes is below the state directory or below RUN_DIR, both of which `down` removes.
"""

import hashlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from wisp_cluster import processes
from wisp_cluster.build import binary
from wisp_cluster.certificates import NODE_NAME, kubeconfig, pki_dir
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.network import NAMESPACE_PATH, NODE_IP, POD_RANGE, SERVICE_RANGE
from wisp_cluster.paths import state_dir
from wisp_cluster.progress import ClusterError, run, wait_for

RUN_DIR = Path("/run/wisp-onenode")
CONTAINERD_SOCKET = RUN_DIR / "containerd.sock"
CGROUP_ROOT = "/wisp-onenode"
CNI_PROGRAMS = "/usr/lib/cni"
ETCD_URL = "http://127.0.0.1:2379"
HEALTH_SECONDS = 90
START_SECONDS = 3
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The node's addresses are this machine's own: no proxy knows them."""
HINT = "run `make up` again; if it fails again, `make down` and then `make up`"


@dataclass(frozen=True)
class Component:
    """One daemon.

    Attributes:
        name: what it is called in `status` and `logs`.
        argv: its command line; the first is its program.
        problem: returns None when it works, else what is missing.
        files: its configuration: path -> content, written before it starts.
        env: added to its environment.
        in_node: whether it runs in the node's network namespace.
    """

    name: str
    argv: Sequence[str]
    problem: Callable[[], str | None]
    files: Mapping[Path, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    in_node: bool = True

    @property
    def program(self) -> str:
        """Base name of its program."""
        return Path(self.argv[0]).name

    @property
    def revision(self) -> str:
        """Hash of all that makes a restart necessary when it changes."""
        content = [
            list(self.argv),
            {str(path): text for path, text in self.files.items()},
            dict(self.env),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return state_dir() / "logs" / f"{self.name}.log"

    def status(self) -> str | None:
        """None when it runs as it should, else what is wrong."""
        found = processes.find(self.name, self.program)
        if found is None:
            return "not running"
        return "runs with an old configuration" if found.revision != self.revision else self.problem()

    def ensure(self) -> None:
        """Start it, or restart it where it runs as something else, and wait until it works.

        Raises:
            ClusterError: it does not come up; the end of its log is shown.
        """
        found = processes.find(self.name, self.program)
        if found and found.revision != self.revision:
            processes.stop([found], grace_seconds=20)
            found = None
        if found is None:
            for path, text in self.files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            netns = NAMESPACE_PATH if self.in_node else None
            processes.start(self.name, self.argv, revision=self.revision, log=self.log, netns=netns, env=self.env)
        started = time.monotonic()

        def missing() -> str | None:
            if processes.find(self.name, self.program):
                return self.problem()
            if time.monotonic() - started > START_SECONDS:
                raise ClusterError(f"{self.name} ended as soon as it was started", log=self.log, hint=HINT)
            return "it does not run yet"

        wait_for(missing, seconds=HEALTH_SECONDS, what=self.name, log=self.log, hint=HINT)


def http_problem(url: str) -> Callable[[], str | None]:
    """A check that a URL answers 200."""

    def problem() -> str | None:
        try:
            with DIRECT.open(url, timeout=2):
                return None
        except (urllib.error.URLError, OSError) as error:
            return f"{url}: {error}"

    return problem


def api_problem() -> str | None:
    """What keeps the API server from being ready: the checks that fail, or why it does not answer."""
    try:
        Kubectl.of_cluster()("get", "--raw", "/readyz", "--request-timeout=5s")
    except ClusterError as error:
        failed = re.findall(r"\[-\](\S+) failed", str(error))
        return f"not ready: {', '.join(failed)}" if failed else str(error).splitlines()[-1]
    return None


def processes_output(argv: Sequence[str]) -> str:
    """What a command prints, errors included; it may fail."""
    return run(["sh", "-c", '"$@" 2>&1 || true', "sh", *argv])


def etcd() -> Component:
    """The cluster's store. It asks nobody who they are, so it listens on the namespace's loopback, where pods can't come.

    It needs no fsync here: the node is made anew after a power cut.
    """
    peer, health = "http://127.0.0.1:2380", f"http://{NODE_IP}:2381"
    argv: list[str] = [
        *(str(binary("etcd")), "--name=onenode", f"--data-dir={state_dir() / 'etcd'}"),
        *(f"--listen-client-urls={ETCD_URL}", f"--advertise-client-urls={ETCD_URL}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=onenode={peer}"),
        *(f"--listen-metrics-urls={health}", "--unsafe-no-fsync", "--log-level=warn", "--auto-compaction-retention=1h"),
    ]
    return Component("etcd", argv, http_problem(f"{health}/health"))


def apiserver() -> Component:
    """The API server, with the tokens of certificates.USERS."""
    pki = pki_dir()
    argv: list[str] = [
        *(
            str(binary("kube-apiserver")),
            f"--etcd-servers={ETCD_URL}",
            f"--advertise-address={NODE_IP}",
            f"--bind-address={NODE_IP}",
        ),
        *("--secure-port=6443", f"--service-cluster-ip-range={SERVICE_RANGE}", "--authorization-mode=Node,RBAC"),
        *(
            "--enable-admission-plugins=NodeRestriction",
            f"--token-auth-file={pki}/tokens.csv",
            f"--client-ca-file={pki}/ca.crt",
        ),
        *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
        *(f"--kubelet-client-certificate={pki}/kubelet-client.crt", f"--kubelet-client-key={pki}/kubelet-client.key"),
        *(
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        ),
        *(
            f"--service-account-key-file={pki}/service-accounts.pub",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
        ),
        *("--enable-aggregator-routing=true", "--profiling=false", "--v=1"),
    ]
    return Component("kube-apiserver", argv, api_problem)


def controller_manager() -> Component:
    """The controllers of Kubernetes itself."""
    pki = pki_dir()
    argv: list[str] = [
        *(
            str(binary("kube-controller-manager")),
            f"--kubeconfig={kubeconfig('controller-manager')}",
            "--leader-elect=false",
        ),
        *("--use-service-account-credentials=true", f"--service-account-private-key-file={pki}/service-accounts.key"),
        *(
            f"--root-ca-file={pki}/ca.crt",
            f"--bind-address={NODE_IP}",
            "--secure-port=10257",
            f"--authentication-kubeconfig={kubeconfig('controller-manager')}",
        ),
        *(
            f"--authorization-kubeconfig={kubeconfig('controller-manager')}",
            "--concurrent-deployment-syncs=10",
            "--v=1",
        ),
    ]
    return Component("kube-controller-manager", argv, tls_problem(10257))


def scheduler() -> Component:
    """The scheduler."""
    config = kubeconfig("scheduler")
    argv: list[str] = [
        *(
            str(binary("kube-scheduler")),
            f"--kubeconfig={config}",
            "--leader-elect=false",
            f"--bind-address={NODE_IP}",
            "--secure-port=10259",
        ),
        *(f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}", "--v=1"),
    ]
    return Component("kube-scheduler", argv, tls_problem(10259))


def tls_problem(port: int) -> Callable[[], str | None]:
    """A check that /healthz of a component with a certificate of its own answers 200."""

    def problem() -> str | None:
        code = http_code(f"https://{NODE_IP}:{port}/healthz")
        return None if code == "200" else f"port {port} answers {code or 'nothing'}"

    return problem


def http_code(url: str) -> str | None:
    """The status code of an address of the node's own, whatever its certificate; None without an HTTP answer."""
    curl = "curl --silent --insecure --noproxy * --max-time 3 --output /dev/null --write-out %{http_code}"
    code = processes_output([*curl.split(), url]).strip()
    return None if code in {"", "000"} else code


def registries_dir() -> Path:
    """Where containerd looks, at each pull, for how to reach a registry: <host>/hosts.toml; for one without a file by TLS that this machine trusts."""
    return state_dir() / "conf" / "registries"


def containerd(pause_image: str) -> Component:
    """The container runtime, with a root, a state folder and a socket of its own."""
    conf = state_dir() / "conf"
    plugin = "plugins.'io.containerd.cri.v1"
    text = f"""version = 3
root = '{state_dir()}/containerd'
state = '{RUN_DIR}/containerd'
oom_score = 0
[grpc]
  address = '{CONTAINERD_SOCKET}'
[{plugin}.images']
  snapshotter = 'overlayfs'
[{plugin}.images'.registry]
  config_path = '{registries_dir()}'
[{plugin}.images'.pinned_images]
  sandbox = '{pause_image}'
[{plugin}.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  netns_mounts_under_state_dir = true
[{plugin}.runtime'.cni]
  bin_dirs = ['{CNI_PROGRAMS}']
  conf_dir = '{conf}/cni'
[{plugin}.runtime'.containerd]
  default_runtime_name = 'runc'
[{plugin}.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[{plugin}.runtime'.containerd.runtimes.runc.options]
  Root = '{RUN_DIR}/runc'
  SystemdCgroup = false
[plugins.'io.containerd.internal.v1.opt']
  path = '{state_dir()}/opt'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"""
    network = {"cniVersion": "1.0.0", "name": "wisp", "plugins": [_ptp()]}
    files = {conf / "containerd.toml": text, conf / "cni" / "10-wisp.conflist": json.dumps(network, indent=1)}
    program = str(binary("containerd"))
    shims = f"{binary('containerd-shim-runc-v2').parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return Component(
        "containerd", [program, "--config", str(conf / "containerd.toml")], containerd_problem, files, {"PATH": shims}
    )


def _ptp() -> dict[str, object]:
    """The pod network: a veth pair to each pod, no bridge, no address translation."""
    ranges = [[{"subnet": POD_RANGE}]]
    ipam = {
        "type": "host-local",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(state_dir() / "cni"),
    }
    return {"type": "ptp", "ipMasq": False, "ipam": ipam}


def ctr(*arguments: str) -> list[str]:
    """A command of containerd's client for the images and containers of Kubernetes."""
    return [str(binary("ctr")), "--address", str(CONTAINERD_SOCKET), "--namespace", "k8s.io", *arguments]


def containerd_problem() -> str | None:
    """What keeps containerd from answering."""
    answer = processes_output(ctr("version"))
    return None if "Server:" in answer else (answer.strip().splitlines() or ["no answer"])[-1]


def kubelet() -> Component:
    """The node's agent."""
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki_dir() / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": CGROUP_ROOT,
        "clusterDNS": [NODE_IP],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},
        "healthzBindAddress": NODE_IP,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 200,
        "podLogsDir": str(state_dir() / "pod-logs"),
        "registerNode": True,
        "resolvConf": str(state_dir() / "conf" / "resolv.conf"),
        "serializeImagePulls": False,
        "syncFrequency": "10s",
    }
    path = state_dir() / "conf" / "kubelet.yaml"
    files = {path: yaml.safe_dump(config), state_dir() / "conf" / "resolv.conf": f"nameserver {NODE_IP}\n"}
    argv: list[str] = [
        *(
            str(binary("kubelet")),
            f"--config={path}",
            f"--kubeconfig={kubeconfig('kubelet')}",
            f"--root-dir={state_dir()}/kubelet",
        ),
        *(f"--hostname-override={NODE_NAME}", f"--node-ip={NODE_IP}", f"--cert-dir={state_dir()}/kubelet-pki", "--v=1"),
    ]
    return Component("kubelet", argv, http_problem(f"http://{NODE_IP}:10248/healthz"), files)


def kube_proxy() -> Component:
    """Services: nftables rules in the node's network namespace."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig("proxy"))},
        "clusterCIDR": POD_RANGE,
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": f"{NODE_IP}:10256",
        "hostnameOverride": NODE_NAME,
        "metricsBindAddress": f"{NODE_IP}:10249",
        "mode": "nftables",
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "oomScoreAdj": 0,
    }
    path = state_dir() / "conf" / "kube-proxy.yaml"
    argv: list[str] = [str(binary("kube-proxy")), f"--config={path}", "--v=1"]
    return Component("kube-proxy", argv, http_problem(f"http://{NODE_IP}:10256/livez"), {path: yaml.safe_dump(config)})


def coredns() -> Component:
    """Names of Services; there is no way to other names from here."""
    text = f""".:53 {{
    bind {NODE_IP}
    errors
    health {NODE_IP}:8054
    ready {NODE_IP}:8055
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig("dns")}
        ttl 5
    }}
}}
"""
    path = state_dir() / "conf" / "Corefile"
    return Component(
        "coredns",
        [str(binary("coredns")), "-conf", str(path)],
        http_problem(f"http://{NODE_IP}:8055/ready"),
        {path: text},
    )
