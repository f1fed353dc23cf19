"""The air-gapped host: the sandbox's libvirtd, uvtool's pool and metadata, and guests on them.

Nothing here asks uvmirror: it looks with libvirt's own binding, qemu-img and the file system.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import uuid

import libvirt

POOL = "uvtool"
IMAGES = "/var/lib/uvtool/libvirt/images"
METADATA = "/var/lib/uvtool/libvirt/metadata"
STATE = "/var/lib/uvmirror"
CONFIG = "/etc/uvmirror"
DAEMON_PID = os.path.join(os.environ["UVMIRROR_SANDBOX"], "libvirtd.pid")

UNDEFINE_ALL = (libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)

POOL_XML = """
<pool type='dir'><name>{name}</name><target><path>{path}</path>
  <permissions><mode>0711</mode></permissions></target></pool>
"""

OVERLAY_XML = """
<volume><name>{name}</name><capacity unit='bytes'>{capacity}</capacity>
  <target><format type='qcow2'/></target>
  <backingStore><path>{base}</path><format type='{base_format}'/></backingStore></volume>
"""

DOMAIN_XML = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>256</memory>
  <os><type arch='x86_64'>hvm</type><boot dev='hd'/>{os}</os>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    {devices}
    <serial type='file'><source path='{console}'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""

FILE_DISK = """
<disk type='file' device='disk'><driver name='qemu' type='{format}'/>
  <source file='{path}'/><target dev='{dev}' bus='virtio'/></disk>
"""

VOLUME_DISK = """
<disk type='volume' device='disk'><driver name='qemu' type='{format}'/>
  <source pool='{pool}' volume='{volume}'/><target dev='vda' bus='virtio'/></disk>
"""


def qemu_img(*args):
    return subprocess.run(["qemu-img", *map(str, args)], check=True, capture_output=True).stdout


def qemu_io(path, command):
    """A command of qemu-io on a qcow2: a guest's write without the guest."""
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, str(path)], check=True,
                   capture_output=True)


@contextlib.contextmanager
def tmpfs(folder, size):
    """A small disk."""
    os.makedirs(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-R", folder], check=True)


def empty(folder):
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def patiently(call):
    """libvirt refuses some calls while it is at work in a pool, also for a client that was killed."""
    end = time.monotonic() + 60
    while True:
        try:
            return call()
        except libvirt.libvirtError as error:
            if "asynchronous jobs" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.1)


class Guest:
    """A domain, defined; it shows that it lives by what its serial console says."""

    def __init__(self, host, name, domain, console):
        self.host, self.name, self.domain, self.console = host, name, domain, console

    def start(self):
        self.domain.create()
        return self

    def said(self):
        try:
            with open(self.console, encoding="utf-8", errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def wait_for(self, text, timeout=120):
        """Waits until the console says `text`; TCG is slow, and a sanitizer may be running next door."""
        end = time.monotonic() + timeout
        while text not in self.said():
            assert self.domain.isActive(), f"guest {self.name} ended; it said:\n{self.said()}"
            assert time.monotonic() < end, f"guest {self.name} said only:\n{self.said()}"
            time.sleep(0.1)

    def stop(self):
        if self.domain.isActive():
            self.domain.destroy()

    def remove(self, *, disks=()):
        """What `uvt-kvm destroy` does: the guest and its disks go."""
        self.stop()
        self.domain.undefineFlags(UNDEFINE_ALL)
        for disk in disks:
            self.host.libvirt.storageVolLookupByPath(disk).delete(0)


class Hypervisor:
    def __init__(self, work):
        self.work = str(work)
        self.libvirt = libvirt.open("qemu:///system")

    # ---- the daemon

    @staticmethod
    def daemon():
        """The process of libvirtd."""
        with open(DAEMON_PID, encoding="ascii") as file:
            return int(file.read())

    def end_daemon(self):
        """As if it had crashed."""
        process = self.daemon()
        os.kill(process, signal.SIGKILL)
        while os.path.exists(f"/proc/{process}"):
            time.sleep(0.01)

    def start_daemon(self):
        subprocess.run(["libvirtd", "-d", "-p", DAEMON_PID], check=True)
        self.libvirt = libvirt.open("qemu:///system")

    def reset(self):
        """Back to a host on which nothing was ever done."""
        for domain in self.libvirt.listAllDomains():
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefineFlags(UNDEFINE_ALL)
        for pool in self.libvirt.listAllStoragePools():
            persistent = pool.isPersistent()
            if pool.isActive():
                patiently(pool.destroy)
            if persistent:
                pool.undefine()
        for folder in ("/var/lib/uvtool", STATE, CONFIG, self.work):
            empty(folder)

    # ---- pools and volumes

    def make_pool(self, name, path=None):
        """A started folder pool; returns its path."""
        path = path or os.path.join(self.work, name)
        os.makedirs(path, exist_ok=True)
        pool = self.libvirt.storagePoolDefineXML(POOL_XML.format(name=name, path=path))
        pool.create()
        return path

    def make_uvtool_pool(self):
        """What uvtool's package makes when it is installed."""
        os.makedirs(METADATA, exist_ok=True)
        return self.make_pool(POOL, IMAGES)

    def pool(self, name=POOL):
        pool = self.libvirt.storagePoolLookupByName(name)
        patiently(pool.refresh)
        return pool

    def volumes(self, name=POOL):
        return sorted(self.pool(name).listVolumes())

    def volume_path(self, name, pool=POOL):
        return self.pool(pool).storageVolLookupByName(name).path()

    def pools(self):
        return sorted(pool.name() for pool in self.libvirt.listAllStoragePools())

    # ---- metadata

    def metadata(self):
        """{file name: its text}"""
        found = {}
        for name in sorted(os.listdir(METADATA)) if os.path.isdir(METADATA) else []:
            with open(os.path.join(METADATA, name), "rb") as file:
                found[name] = file.read()
        return found

    def view(self):
        """Everything that a refused command must leave as it was."""
        files = {}
        for folder in (IMAGES, METADATA):
            for name in os.listdir(folder) if os.path.isdir(folder) else []:
                info = os.stat(os.path.join(folder, name))
                files[os.path.join(folder, name)] = (info.st_ino, info.st_size, info.st_mtime_ns)
        staged = []
        for pool in self.pools():
            staged += [(pool, volume) for volume in self.volumes(pool)]
        return files, self.metadata(), sorted(staged)

    def retire(self, name):
        """What uvtool does when a source no longer lists a version."""
        os.unlink(os.path.join(METADATA, name))

    def write_metadata(self, name, values):
        with open(os.path.join(METADATA, name), "w", encoding="utf-8") as out:
            json.dump(values, out, indent=4)

    # ---- guests

    def overlay(self, base, name, pool=POOL, base_format="qcow2"):
        """A guest's disk, made through libvirt as uvt-kvm makes it; returns its path."""
        capacity = json.loads(qemu_img("info", "-U", "--output=json", base))["virtual-size"]
        xml = OVERLAY_XML.format(name=name, capacity=capacity, base=base, base_format=base_format)
        return self.pool(pool).createXML(xml, 0).path()

    def overlay_file(self, base, path, base_format="qcow2"):
        """The same behind libvirt's back."""
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", base_format, path)
        os.chmod(path, 0o644)
        return str(path)

    def guest(self, name, disk=None, devices="", disk_format="qcow2", os_xml=""):
        """Defines a guest with the disk (a path) and any other devices given as XML. Of a name that is
        there already, the stored definition is replaced."""
        console = os.path.join(self.work, f"{name}.console")
        if disk:
            devices = FILE_DISK.format(format=disk_format, path=disk, dev="vda") + devices
        xml = DOMAIN_XML.format(name=name, uuid=uuid.uuid5(uuid.NAMESPACE_DNS, name),
                                devices=devices, console=console, os=os_xml)
        return Guest(self, name, self.libvirt.defineXML(xml), console)

    def guest_on_volume(self, name, pool, volume):
        return self.guest(name, devices=VOLUME_DISK.format(format="qcow2", pool=pool, volume=volume))
