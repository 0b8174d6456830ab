"""The demo that ends `make up`: the examples, deployed and seen at work, with the time that each step took.

It does what the examples' READMEs tell a person to do, with the same manifests. Run again, it finds what is there and shows it at
work once more.
"""

import base64
import io
import json
import secrets
import time
import urllib.error
import urllib.request
from pathlib import Path

from minio import Minio, S3Error
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin
from PIL import Image, ImageDraw

from wisp_cluster.install import NAMESPACE as SYSTEM
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.paths import VERSION, checkout, http_port
from wisp_cluster.progress import ClusterError, Steps, wait_for

NAMESPACE = "demo"
INGRESS = f"http://127.0.0.1:{http_port()}"
EXAMPLES = ("hello", "thumbnail", "orders")
PHOTO_SIZE = (1600, 1200)
COLD_START_SECONDS = 120
"""Far more than a cold start takes: how long the demo waits before it says that something is wrong."""

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "s3:GetObject",
                "s3:ListBucket",
                "s3:GetBucketLocation",
                "s3:GetBucketNotification",
                "s3:PutBucketNotification",
                "s3:PutObject",
            ],
            "Resource": [
                "arn:aws:s3:::photos",
                "arn:aws:s3:::photos/*",
                "arn:aws:s3:::photos-small",
                "arn:aws:s3:::photos-small/*",
            ],
        }
    ],
}
"""What the demo's own S3 user may do: the two buckets, nothing else."""


def demo(kubectl: Kubectl, references: dict[str, str]) -> None:
    """Deploy the examples into the namespace `demo` and show each at work.

    Args:
        kubectl: the cluster, Wisp installed.
        references: name in images.yaml -> image reference that the cluster has.

    Raises:
        ClusterError: something did not come about in time; it says what, and where to look.
    """
    own, system = kubectl.within(NAMESPACE), kubectl.within(SYSTEM)
    steps = Steps(7)
    with system.port_forward("svc/wisp-minio", 9000) as port:
        with steps.step("making the buckets photos and photos-small, an S3 user, and the connections"):
            own.ensure_namespace()
            store = make_buckets(system, own, port)
            make_database_secret(own)
        with steps.step("deploying the examples hello, thumbnail and orders"):
            for example in EXAMPLES:
                own.apply(manifests(example, references))
        with steps.step("waiting for 3 functions and 2 subscriptions to be ready"):
            for name in ("hello", "thumbnail", "order-history"):
                own.wait_ready("functions", name, seconds=300)
            for name in ("on-upload", "on-order-change"):
                own.wait_ready("subscriptions", name, seconds=300)
        with steps.step("calling hello over HTTP"):
            url = own.wait_ready("functions", "hello")["status"]["url"]
            answer = get(url, "?name=Wisp")
        print(f"      {url}/?name=Wisp -> {answer}")
        with steps.step("waiting until nothing runs: the functions scale to zero"):
            for name in ("thumbnail", "order-history"):
                own.wait_pods(f"wisp.dev/function={name}", lambda count: count == 0, f"{name} goes to zero", 240)
        with steps.step("uploading a photo"):
            photo, thumbnail, seconds = show_thumbnail(store)
        print(
            f"      {photo} -> {thumbnail}: a pod started from nothing and had written it {seconds:.2f} s after the upload"
        )
        with steps.step("inserting, updating and deleting a row of PostgreSQL"):
            history = show_rows(own)
        for line in history:
            print(f"      {line}")
    print(next_steps(own, url))


def manifests(example: str, references: dict[str, str]) -> str:
    """All manifests of one example, see `manifest`."""
    return "\n---\n".join(
        manifest(path, references) for path in sorted((checkout() / "examples" / example).glob("*.yaml"))
    )


def manifest(path: Path, references: dict[str, str]) -> str:
    """A manifest with the images that were built here in place of the names a person would fill in."""
    text = path.read_text()
    for name, reference in references.items():
        text = text.replace(f"dev.local/{name}:{VERSION}", reference)
    return text


def make_buckets(system: Kubectl, own: Kubectl, port: int) -> Minio:
    """Create the two buckets, the S3 user `demo` who may use just them, and the Secret my-s3; return a client of that user."""
    root = read_secret(system, "wisp-minio")
    address = f"127.0.0.1:{port}"
    store = Minio(address, root["rootUser"], root["rootPassword"], secure=False)
    for bucket in ("photos", "photos-small"):
        if not store.bucket_exists(bucket):
            store.make_bucket(bucket)
    keys = read_secret(own, "my-s3")
    if not keys:
        keys = {"accessKey": "demo", "secretKey": secrets.token_hex(20)}
        keys["endpoint"] = f"http://wisp-minio.{SYSTEM}.svc:9000"
        write_secret(own, "my-s3", keys)
    admin = MinioAdmin(
        endpoint=address, credentials=StaticProvider(root["rootUser"], root["rootPassword"]), secure=False
    )
    admin.user_add(keys["accessKey"], keys["secretKey"])
    admin.policy_add("demo", policy=POLICY)
    if "demo" not in json.loads(admin.user_info(keys["accessKey"])).get("policyName", ""):
        admin.policy_set("demo", user=keys["accessKey"])
    return Minio(address, keys["accessKey"], keys["secretKey"], secure=False)


def make_database_secret(own: Kubectl) -> None:
    """Create the Secret shop-db with a password of its own, once."""
    if not read_secret(own, "shop-db"):
        password = secrets.token_hex(16)
        write_secret(own, "shop-db", {"password": password, "dsn": f"postgresql://shop:{password}@orders-db:5432/shop"})


def read_secret(own: Kubectl, name: str) -> dict[str, str]:
    """The values of a Secret, decoded; empty where there is none."""
    found = own.get("secret", name) or {}
    return {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}


def write_secret(own: Kubectl, name: str, values: dict[str, str]) -> None:
    """A Secret of these values; they travel through standard input, never a command line."""
    own.apply(json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}))


def get(url: str, query: str) -> str:
    """GET a function through the ingress on this machine's loopback, by its name in the Host header: no name service is needed.

    Raises:
        ClusterError: it did not answer with 200.
    """
    request = urllib.request.Request(f"{INGRESS}/{query}", headers={"Host": host_of(url)})  # noqa: S310 - http on loopback
    try:
        with urllib.request.urlopen(request, timeout=COLD_START_SECONDS) as answer:  # noqa: S310 - see above
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, OSError) as error:
        raise ClusterError(f"{url}: {error}", hint="kubectl -n demo describe fn hello") from error


def host_of(url: str) -> str:
    """The host that a function's URL names."""
    return url.removeprefix("http://").rstrip("/")


def photo() -> bytes:
    """A JPEG as a camera would make, drawn here: a sun over hills."""
    image = Image.new("RGB", PHOTO_SIZE, "#7ec8e3")
    draw = ImageDraw.Draw(image)
    width, height = PHOTO_SIZE
    draw.ellipse((width * 0.65, height * 0.1, width * 0.85, height * 0.1 + width * 0.2), fill="#ffd166")
    draw.ellipse((-width * 0.2, height * 0.55, width * 0.7, height * 1.6), fill="#2a9d8f")
    draw.ellipse((width * 0.4, height * 0.65, width * 1.3, height * 1.7), fill="#264653")
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()


def show_thumbnail(store: Minio) -> tuple[str, str, float]:
    """Upload a photo, wait for its thumbnail; return what each is, in words, and the seconds between."""
    key, content = f"in/sunrise-{time.strftime('%H%M%S')}.jpg", photo()
    store.put_object("photos", key, io.BytesIO(content), len(content), content_type="image/jpeg")
    start = time.monotonic()

    def missing() -> str | None:
        try:
            store.stat_object("photos-small", key)
        except S3Error as error:
            return f"photos-small/{key}: {error.code}"
        return None

    hint = "kubectl -n demo describe sub on-upload; kubectl -n demo get pods"
    wait_for(missing, seconds=COLD_START_SECONDS, what="the thumbnail", hint=hint)
    seconds = time.monotonic() - start
    with store.get_object("photos-small", key) as answer:
        small = answer.read()
    size = "x".join(str(side) for side in Image.open(io.BytesIO(small)).size)
    return (
        f"photos/{key} ({PHOTO_SIZE[0]}x{PHOTO_SIZE[1]}, {len(content)} bytes)",
        f"photos-small/{key} ({size}, {len(small)} bytes)",
        seconds,
    )


def show_rows(own: Kubectl) -> list[str]:
    """Change one row three times, wait until the function has seen all three; return what it saw, a line each."""
    order = int(time.time())
    for statement in (
        f"INSERT INTO orders VALUES ({order}, 'Ada', 129.90)",  # noqa: S608 - our own number
        f"UPDATE orders SET status = 'paid' WHERE id = {order}",  # noqa: S608 - our own number
        f"DELETE FROM orders WHERE id = {order}",  # noqa: S608 - our own number
    ):
        sql(own, statement)
    start = time.monotonic()
    columns = "op || '  old: ' || coalesce(old::text, '-') || '  new: ' || coalesce(new::text, '-')"
    seen: list[str] = []

    def missing() -> str | None:
        seen[:] = sql(own, f"SELECT {columns} FROM order_history WHERE order_id = {order} ORDER BY id").splitlines()  # noqa: S608 - our own number
        return None if len(seen) >= 3 else f"{len(seen)} of 3 changes seen"  # noqa: PLR2004 - insert, update, delete

    hint = "kubectl -n demo describe sub on-order-change; kubectl -n demo get pods"
    wait_for(missing, seconds=COLD_START_SECONDS, what="the history of the row", hint=hint)
    return [
        *seen,
        f"all three, in order, {time.monotonic() - start:.2f} s after the last commit (a pod started from nothing)",
    ]


def sql(own: Kubectl, statement: str) -> str:
    """Run a statement in the demo's database."""
    return own("exec", "-i", "orders-db-0", "--", "psql", "-U", "postgres", "-qAt", "shop", stdin=statement).strip()


def next_steps(own: Kubectl, url: str) -> str:
    """What to try next."""
    return f"""
It works. Next:
  export KUBECONFIG={own.kubeconfig} PATH={own.program.parent}:$PATH
  curl -H 'Host: {host_of(url)}' '{INGRESS}/?name=you'
  kubectl -n {NAMESPACE} get fn,sub                 # what there is, and whether it is ready
  kubectl -n {NAMESPACE} get pods --watch           # they come with the load and go when it stops
  kubectl apply -f examples/hello/                  # a function of your own: change the code in it, apply again
  kubectl explain fn.spec.code
  make down                                         # leaves nothing behind
"""
