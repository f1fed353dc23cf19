"""What uvtool would see on this host: a model of its behaviour, written from its documentation of
states (metadata and volume of one name), not from uvmirror.

uvtool trusts what it finds. Here everything that would make it raise an exception, or erase or delete
something, is named.
"""

import base64
import binascii
import json
import xml.etree.ElementTree as ET

PREFIX = "x-uvt-b64-"
WANTED = ("release", "arch", "label")


def encode(product, version):
    text = f"{product} {version}".encode()
    return PREFIX + base64.b64encode(text, altchars=b"-_").decode()


def decode(name):
    if not name.startswith(PREFIX):
        raise ValueError(f"{name}: not a name of uvtool's")
    text = base64.b64decode(name[len(PREFIX):], altchars=b"-_", validate=True).decode()
    product, version = text.split(None, 1)
    return product, version


def images(host):
    """The images that `uvt-simplestreams-libvirt query` would list: [(product, version, metadata)]."""
    volumes = set(host.volumes())
    found = []
    for name, text in host.metadata().items():
        if name in volumes:
            product, version = decode(name)
            found.append((product, version, json.loads(text)))
    return sorted(found, key=lambda image: image[:2])


def versions(host):
    return [version for _, version, _ in images(host)]


def query(host, **filters):
    """Names of the images for which all metadata equal the filters: what uvt-kvm create picks from."""
    return [encode(product, version) for product, version, metadata in images(host)
            if all(metadata.get(key, "") == value for key, value in filters.items())]


def used_by_domains(host):
    """uvtool's own, narrow idea of use: file disks of domains, and one backing file below each."""
    used = set()
    for domain in host.libvirt.listAllDomains():
        for flags in (0, 2):
            tree = ET.fromstring(domain.XMLDesc(flags))
            for source in tree.findall("./devices/disk[@type='file']/source[@file]"):
                used |= with_backing(host, source.get("file"))
    return used


def with_backing(host, path):
    try:
        tree = ET.fromstring(host.libvirt.storageVolLookupByPath(path).XMLDesc())
    except Exception:  # libvirt.libvirtError: not a volume
        return {path}
    return {element.text for element in tree.findall("./target/path")
            + tree.findall("./backingStore/path")}


def would_delete(host):
    """Volumes that uvtool's own cleanup, run now, would delete."""
    used = used_by_domains(host)
    known = host.metadata()
    return [name for name in host.volumes()
            if name not in known and host.volume_path(name) not in used]


def problems(host):
    """Everything that a sync or query of uvtool would stumble over."""
    found = []
    volumes = set(host.volumes())
    for name, text in host.metadata().items():
        try:
            product, version = decode(name)
        except (ValueError, binascii.Error) as error:
            found.append(f"metadata {name}: {error}")
            continue
        if name != encode(product, version):
            found.append(f"metadata {name}: not the canonical name of {product} {version}")
        if name not in volumes:
            found.append(f"metadata without volume: {product} {version}")
        found += [f"{product} {version}: {problem}" for problem in wrong(text, product, version)]
    return found


def wrong(text, product, version):
    try:
        metadata = json.loads(text)
    except ValueError as error:
        return [f"metadata is no JSON: {error}"]
    expected = {"product_name": product, "version_name": version, "item_name": "disk1.img"}
    return ([f"{key} is {metadata.get(key)!r}" for key, value in expected.items()
             if metadata.get(key) != value]
            + [f"no {key}" for key in WANTED if not metadata.get(key)]
            + [f"{key} is no string" for key, value in metadata.items()
               if not isinstance(value, str)])
