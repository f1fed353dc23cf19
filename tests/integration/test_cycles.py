"""Cycles of import, guest, snapshot, newer import and removal, in random order and with other steps in
between, on a real libvirtd. After each step the host is what the model says (cycles_model.py).

The seed is printed; UVMIRROR_SEED repeats a run."""

import copy
import json
import os
import random
import re

import pytest

import bundles
import hypervisor
import uvtool_view
from cycles_guests import GuestSteps
from cycles_model import CONTENT, DONE, LIBVIRT, Host, bundle_of
from sample_mirror import PRODUCT

JAMMY = "com.ubuntu.cloud:server:22.04:amd64"
PRODUCTS = {PRODUCT: {"release": "noble"},
            JAMMY: {"release": "jammy", "number": "22.04", "title": "22.04 LTS"}}
RELEASES = ("jammy", "noble")
OTHERS_OF_A_CYCLE = 5
IMAGE_SIZE = 1 << 17
DAMAGE = 16  # bytes

USER = re.compile(r"(guest|volume) (\S+)")


class Vendor:
    """Publishes versions and takes some back; time goes on with each change."""

    def __init__(self, mirror, make_image, choose):
        self.mirror, self.make_image, self.choose = mirror, make_image, choose
        self.days, self.images, self.stream = 0, {}, {}

    def publish(self, product):
        self.days += 1
        version = f"2024{self.days:04}" + self.choose.choice(("", "", ".1"))
        image = self.make_image(f"cycles-{version}", IMAGE_SIZE)
        self.images[uvtool_view.encode(product, version)] = image
        self.mirror.add_image(version, image, product, **PRODUCTS[product])
        self.write()
        return f"{PRODUCTS[product]['release']} {version}"

    def withdraw(self, product, version):
        del self.mirror.products[product]["versions"][version]
        self.write()

    def write(self):
        self.days += 1
        self.mirror.write(1704067200 + self.days * 86400, change=self.remember)

    def remember(self, stream):
        self.stream = copy.deepcopy(stream)


class World(GuestSteps):
    """The vendor, the internet host and the hypervisor, beside the model of the latter."""

    def __init__(self, uvmirror, fetch, vendor, host, folder, choose):
        pools = {hypervisor.POOL: hypervisor.IMAGES, "disks": host.make_pool("disks")}
        super().__init__(host, Host(pools), choose)
        self.uvmirror, self.fetch, self.vendor, self.folder = uvmirror, fetch, vendor, folder
        self.bundles = []
        for product in PRODUCTS:
            vendor.publish(product)
        self.take_bundle()

    # ---- the internet host

    def take_bundle(self, *args, most=1, releases=RELEASES, without=None):
        path = self.folder / f"{len(self.bundles) + 1}.tar.zst"
        filters = [f"release~^({'|'.join(releases)})$"]
        filters += [f"version_name!={without}"] if without else []
        self.fetch("--max", most, "-o", path, *args, *filters)
        self.bundles.append(bundle_of(len(self.bundles) + 1, path, self.vendor.stream, most, releases,
                                      without))

    def step_publish(self):
        return self.vendor.publish(self.some(PRODUCTS))

    def step_withdraw(self):
        product = self.some(PRODUCTS)
        versions = self.vendor.mirror.products[product]["versions"]
        if len(versions) == 1:
            return None
        version = self.some(versions)
        self.vendor.withdraw(product, version)
        return f"{product} {version}"

    def step_fetch(self):
        """All, or one release, or all but one version of it."""
        most, releases = self.choose.randint(1, 3), RELEASES
        without = None
        if self.choose.random() < 0.4:
            product = self.some(PRODUCTS)
            releases = (PRODUCTS[product]["release"],)
            versions = self.vendor.stream["products"][product]["versions"]
            without = self.some(versions) if len(versions) > 1 else None
        self.take_bundle(most=most, releases=releases, without=without)
        return f"--max {most} of {releases} without {without}"

    # ---- import

    def import_bundle(self, bundle, *, most=1, allow_older=False, volumes=True, release=None,
                      dry_run=False):
        model = self.model
        code, steps, taken = model.plan(bundle, most, release, allow_older)
        if code == DONE and model.not_mounted() and not dry_run:
            code = LIBVIRT
        args = [f"--max={most}"]
        args += ["--allow-older"] * allow_older + ["--no-clean"] * (not volumes)
        args += ["--dry-run"] * dry_run + [f"release={release}"] * bool(release)
        if code == DONE and dry_run:
            deleted, erased = self.foresee(steps, volumes)
        elif code == DONE:
            deleted, erased = model.import_bundle(bundle, steps, taken, volumes=volumes)
        result = self.uvmirror("import", "--json", *args, bundle.path, code=code)
        if code == DONE:
            self.check_import(result, steps, deleted, erased)
        return f"{bundle.path.name} {' '.join(args)}: exit code {code}, {sorted(steps.values())}"

    def foresee(self, steps, volumes):
        """What a dry run tells: the cleanup after the plan's retirements."""
        after = copy.deepcopy(self.model)
        for name, action in steps.items():
            if action == "retire":
                del after.metadata[name]
        gone, erased = after.cleanup(volumes=volumes)
        return [self.model.title(name) for name in gone], erased

    @staticmethod
    def check_import(result, steps, deleted, erased):
        told = {line["name"]: line["action"] for line in result.lines if line["event"] == "image"
                and line["action"] != "skip"}
        assert {name: " ".join(action.split(",")[0].split()) for name, action in told.items()} == steps
        end = result.lines[-1]
        assert sorted(end["deleted"]) == sorted(deleted), str(result)
        assert sorted(end["erased"]) == sorted(erased), str(result)

    def options(self):
        return {"most": self.choose.randint(1, 3), "volumes": self.choose.random() < 0.8,
                "release": self.choose.choice((None, None, None, *RELEASES))}

    def step_import(self):
        return self.import_bundle(self.bundles[-1], **self.options())

    def step_import_newer(self):
        """With the defaults, as most do."""
        self.vendor.publish(self.some(PRODUCTS))
        self.take_bundle()
        return self.import_bundle(self.bundles[-1])

    def step_import_any(self):
        """An older one, or one that was taken before."""
        return self.import_bundle(self.choose.choice(self.bundles), **self.options(),
                                  allow_older=self.choose.random() < 0.5)

    def step_import_dry_run(self):
        return self.import_bundle(self.choose.choice(self.bundles), **self.options(), dry_run=True,
                                  allow_older=self.choose.random() < 0.5)

    def step_import_damaged(self):
        """Whatever is damaged, no image comes or is retired. When it shows only after the manifest, what
        was unused before has made room already."""
        bundle = self.choose.choice(self.bundles)
        data = bytearray(bundle.path.read_bytes())
        second = bundles.second_frame(data)
        in_manifest = self.choose.random() < 0.5
        first, last = (0, second) if in_manifest else (second, len(data))
        at = self.choose.randrange(first, last - DAMAGE)
        data[at:at + DAMAGE] = bytes(byte ^ 0xff for byte in data[at:at + DAMAGE])
        path = self.folder / "damaged.tar.zst"
        path.write_bytes(data)
        code, _, _ = self.model.plan(bundle, 1, None, False)
        if in_manifest:
            code = CONTENT
        elif code == DONE and self.model.not_mounted():
            code = LIBVIRT
        elif code == DONE:
            self.model.clean()
            code = CONTENT
        self.uvmirror("import", path, code=code)
        return f"{bundle.path.name} at {at} of {len(data)}: exit code {code}"

    # ---- clean

    def clean(self, *args, dry_run=False, **options):
        gone, erased = (copy.deepcopy(self.model) if dry_run else self.model).clean(**options)
        args += ("--dry-run",) * dry_run
        end = self.uvmirror("clean", "--json", *args).lines[-1]
        assert sorted(end["deleted"]) == sorted(gone) and sorted(end["erased"]) == sorted(erased), end
        return f"{' '.join(args)}: {len(gone)} deleted, {len(erased)} erased"

    def step_clean(self):
        return self.clean()

    def step_clean_dry_run(self):
        return self.clean(dry_run=True)

    def step_clean_foreign(self):
        return self.clean("--foreign", "--foreign-age=0", foreign=True,
                          dry_run=self.choose.random() < 0.5)

    def step_clean_ignoring(self):
        """The way out for guests whose disks are lost."""
        guests = self.model.doubtful()
        return guests and self.clean(*(f"--ignore-guest={name}" for name in guests), ignored=guests)

    # ---- the comparison

    def check(self):
        model, host = self.model, self.host
        assert sorted(os.listdir(hypervisor.IMAGES)) == model.volumes()
        for pool in model.pools:
            assert host.volumes(pool) == model.volumes(pool)
        assert set(host.pools()) - set(model.pools) <= {"uvmirror-stage"}
        assert "uvmirror-stage" not in host.pools() or host.volumes("uvmirror-stage") == []
        assert host.metadata() == {name: json.dumps(values, indent=4).encode()
                                   for name, values in model.metadata.items()}
        assert not os.path.exists(os.path.join(hypervisor.STATE, "journal.json"))
        self.check_list()

    def check_list(self):
        model = self.model
        result = self.uvmirror("list", "--json")
        told = {line["name"]: (line["state"], {USER.match(user).groups() for user in line["users"]})
                for line in result.lines if "event" not in line}
        expected = {name: (model.state(name), model.users(model.path(name)))
                    for name in model.images()}
        expected.update({name: ("foreign", model.users(model.path(name)))
                         for name in model.foreign()})
        assert told == expected, str(result)
        said = re.findall(r"warning: .*guest (\S+?):? ", result.err.decode())
        assert set(said) == set(model.doubtful()), str(result)

    def check_content(self):
        for name in self.model.images():
            path = self.model.path(name)
            if path in self.model.files:
                hypervisor.qemu_img("compare", "-U", self.vendor.images[name], path)
                hypervisor.qemu_img("check", "-q", "-U", path)


# What makes a cycle, and what comes in between; some of it more often.
CYCLE = ("import", "guest", "snapshot", "import_newer", "remove_guest")
OTHERS = (
    "publish", "withdraw", "fetch", "fetch",
    "import_any", "import_any", "import_dry_run", "import_damaged",
    "clean", "clean_dry_run", "clean_foreign", "clean_ignoring", "clean_ignoring",
    "guest", "clone", "snapshot", "start", "start", "stop", "undefine", "rename", "move", "lose_disk",
    "foreign_volume", "remove_leftover", "retire", "remove_image", "remove_image")


def run(world, cycles):
    for cycle in range(cycles):
        steps = [*CYCLE, *world.choose.sample(OTHERS, OTHERS_OF_A_CYCLE)]
        world.choose.shuffle(steps)
        for name in steps:
            print(f"{cycle} {name}", end=": ", flush=True)
            print(getattr(world, f"step_{name}")())
            world.check()
        world.check_content()


@pytest.fixture
def world(uvmirror, fetch, mirror, make_image, host, folder):
    seed = int(os.environ.get("UVMIRROR_SEED") or random.randrange(1 << 32))
    print(f"UVMIRROR_SEED={seed}")
    choose = random.Random(seed)
    return World(uvmirror, fetch, Vendor(mirror, make_image, choose), host, folder, choose)


def test_cycles(world):
    run(world, 3)


@pytest.mark.long
def test_fifty_cycles(world):
    run(world, 50)
