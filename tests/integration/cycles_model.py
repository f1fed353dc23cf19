"""What must exist: a vendor's stream, bundles of it, and a host with guests, as plain Python.

Written from the design, not from the program: four states (metadata or not, volume or not), what a
bundle brings and retires, what needs an image, and what a cleanup takes. Files are known by their
paths, images by the names of their volumes; nothing here looks at a real one."""

import os
from dataclasses import dataclass, field

import hypervisor
import uvtool_view

# Exit codes.
DONE, TRUST, CONTENT, LIBVIRT = 0, 4, 5, 7


def flatten(stream, product, version):
    """The metadata of a version's disk1.img."""
    about = stream["products"][product]
    item = about["versions"][version]["items"]["disk1.img"]
    values = {}
    for level in (stream, about, {"product_name": product}, about["versions"][version],
                  {"version_name": version}, item, {"item_name": "disk1.img"}):
        values.update({key: str(level[key]) for key in sorted(level)
                       if isinstance(level[key], (str, int, float))})
    return values


@dataclass
class Carried:
    """A product in a bundle."""
    images: dict  # {version: its metadata}
    listed: list  # every version that the source lists
    complete: bool

    def wanted(self, most):
        versions = self.listed if self.complete else self.images
        return sorted(versions, reverse=True)[:most]

    @property
    def release(self):
        return next(iter(self.images.values()))["release"]


@dataclass
class Bundle:
    number: int  # a later bundle has a higher one
    path: object
    products: dict  # {name: Carried}


def bundle_of(number, path, stream, most, releases, without):
    """What a fetch with `--max most` takes of these releases; the version `without` is hidden by a
    filter."""
    products = {}
    for product, about in stream["products"].items():
        listed = list(about["versions"])
        matching = sorted(set(listed) - {without}, reverse=True)[:most]
        if about["release"] in releases and matching:
            products[product] = Carried(
                {version: flatten(stream, product, version) for version in matching}, listed,
                without not in listed)
    return Bundle(number, path, products)


@dataclass
class Guest:
    """`stored` and `live` are its disk in the two definitions. A guest that is not stored vanishes when
    it stops. Each snapshot names the disk of its time, and the file that took over."""
    name: str
    stored: str
    live: str = None
    snapshots: list = field(default_factory=list)
    files: list = field(default_factory=list)  # made for it, the newest last

    @property
    def needs(self):
        named = {self.stored, self.live} | {path for pair in self.snapshots for path in pair}
        return named - {None}


class Host:
    def __init__(self, pools):
        self.pools = pools  # {name: folder}
        self.files = {}  # {path: what it stands on, or None}: volumes, and disks outside of pools
        self.metadata = {}  # {name of an image: its metadata}
        self.guests = {}
        self.seen = {}  # {product: the number of the newest bundle}

    # ---- what is there

    @staticmethod
    def path(name):
        return os.path.join(hypervisor.IMAGES, name)

    def volumes(self, pool=hypervisor.POOL):
        return sorted(os.path.basename(path) for path in self.files
                      if os.path.dirname(path) == self.pools[pool])

    def is_volume(self, path):
        return path in self.files and os.path.dirname(path) in self.pools.values()

    def images(self):
        """Every name of ours: of a volume, of metadata or of both."""
        ours = {name for name in self.volumes() if name.startswith(uvtool_view.PREFIX)}
        return sorted(ours | set(self.metadata))

    def foreign(self):
        return sorted(set(self.volumes()) - set(self.images()))

    def ready(self):
        return [name for name in self.images() if self.state(name) == "ready"]

    def broken(self):
        return [name for name in self.images() if self.state(name) == "broken"]

    def unused(self):
        return [name for name in self.images() if self.state(name) == "unused"]

    # ---- who needs it

    def chain(self, path):
        """The file, what it stands on, and so on; the last one may be missing."""
        while path:
            yield path
            path = self.files.get(path)

    def needed_by(self, guest):
        return {path for need in guest.needs for path in self.chain(need)}

    def users(self, path):
        """Guests, and volumes that no guest needs, as ("guest", name) and ("volume", name)."""
        needed = {guest.name: self.needed_by(guest) for guest in self.guests.values()}
        found = {("guest", name) for name, paths in needed.items() if path in paths}
        for volume in filter(self.is_volume, self.files):
            below = filter(self.is_volume, list(self.chain(volume))[1:])
            if not any(volume in paths for paths in needed.values()) and next(below, None) == path:
                found.add(("volume", os.path.basename(volume)))
        return found

    def doubtful(self, ignored=()):
        """Guests with a file that is gone: what it stood on cannot be told."""
        return [guest.name for guest in self.guests.values()
                if guest.name not in ignored and not self.needed_by(guest) <= set(self.files)]

    def state(self, name, ignored=()):
        if name in self.metadata:
            return "ready" if self.path(name) in self.files else "broken"
        return "retired" if self.users(self.path(name)) or self.doubtful(ignored) else "unused"

    def title(self, name):
        """A release is known from metadata alone, be it that of another version."""
        product, version = uvtool_view.decode(name)
        for values in self.metadata.values():
            if values["product_name"] == product:
                return f"{values['release']} {values['arch']} {version}"
        return f"{product} {version}"

    # ---- cleanup

    def not_mounted(self):
        """An empty pool, and metadata of several images: nobody knows."""
        return len(self.broken()) > 1 and not self.volumes()

    def cleanup(self, *, volumes=True, foreign=False, ignored=()):
        """(names of the volumes that go, names of the metadata files)"""
        erased = [] if self.not_mounted() else self.broken()
        if not volumes:
            return [], erased
        gone = [name for name in self.images() if self.state(name, ignored) == "unused"]
        if foreign and not self.doubtful(ignored):
            gone += [name for name in self.foreign() if not self.users(self.path(name))]
        return gone, erased

    def clean(self, **options):
        """The same, done; titles instead of the volumes' names."""
        gone, erased = self.cleanup(**options)
        titles = [name if name in self.foreign() else self.title(name) for name in gone]
        for name in gone:
            del self.files[self.path(name)]
        for name in erased:
            del self.metadata[name]
        return titles, erased

    # ---- import

    def plan(self, bundle, most, release, allow_older):
        """(exit code, {name: what is done with it}, products that count as taken)"""
        steps, taken, older = {}, [], 0
        for product, carried in bundle.products.items():
            if release not in (None, carried.release):
                continue
            if bundle.number < self.seen.get(product, 0) and not allow_older:
                older += 1
                continue
            taken.append(product)
            wanted = [uvtool_view.encode(product, version) for version in carried.wanted(most)]
            for version in carried.images:
                name = uvtool_view.encode(product, version)
                if name in wanted:
                    steps[name] = self.step(name)
            if carried.complete:
                steps.update({name: "retire" for name in self.ready() if name not in wanted
                              and uvtool_view.decode(name)[0] == product})
        if older and not taken:
            return TRUST, {}, []
        return DONE, steps, taken

    def step(self, name):
        """How an image comes that is wanted."""
        if self.state(name) == "ready":
            return "keep"
        if self.path(name) not in self.files:
            return "add"
        return "replace" if self.state(name) == "unused" else "link again"

    def import_bundle(self, bundle, steps, taken, *, volumes=True):
        """Carries out a plan; returns the titles of what was deleted and the names of what was
        erased."""
        room, erased = self.clean(volumes=volumes)
        for name, action in steps.items():
            product, version = uvtool_view.decode(name)
            if action == "retire":
                del self.metadata[name]
            elif action != "keep":
                self.files[self.path(name)] = None
                self.metadata[name] = bundle.products[product].images[version]
        self.seen.update({product: bundle.number for product in taken})
        deleted, _ = self.clean(volumes=volumes)
        return room + deleted, erased
