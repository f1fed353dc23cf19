"""Steps of the cycles on guests and on files that are not ours: done to a real host (hypervisor.py)
and to its model (cycles_model.py)."""

import os

import libvirt

import hypervisor
import uvtool_view
from cycles_model import Guest

SNAPSHOT = """
<domainsnapshot><name>{name}</name><disks><disk name='vda' snapshot='external'/></disks>
</domainsnapshot>"""


class GuestSteps:
    """A step is a method `step_...` that tells what it did; None, when there is nothing that it could
    be done to."""

    def __init__(self, host, model, choose):
        self.host, self.model, self.choose = host, model, choose
        self.domains, self.count = {}, 0  # {name of a guest: its domain}

    def new_name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def some(self, values):
        """One of them, or None."""
        values = sorted(values)
        return self.choose.choice(values) if values else None

    # ---- guests

    def make_overlay(self, base, name):
        """In uvtool's pool as uvt-kvm does it, in another pool, or outside of any."""
        pool = self.choose.choice((hypervisor.POOL, hypervisor.POOL, "disks", None))
        if pool:
            path = self.host.overlay(base, name, pool)
        else:
            path = self.host.overlay_file(base, os.path.join(self.host.work, name))
        self.model.files[path] = base
        return path

    def make_guest(self, base):
        name = self.new_name("web")
        disk = self.make_overlay(base, f"{name}.qcow")
        self.domains[name] = self.host.guest(name, disk).domain
        self.model.guests[name] = Guest(name, disk, files=[disk])
        return f"{name}: {disk} on {os.path.basename(base)}"

    def sound_guests(self, condition=lambda guest: True):
        lost = self.model.doubtful()
        return [name for name, guest in self.model.guests.items()
                if name not in lost and condition(guest)]

    def step_guest(self):
        name = self.some(self.model.ready())
        return name and self.make_guest(self.model.path(name))

    def step_clone(self):
        """A guest on the disk of one that does not run; that one is not started again."""
        name = self.some(self.sound_guests(lambda guest: not guest.live))
        return name and self.make_guest(self.model.guests[name].stored)

    def step_snapshot(self):
        """Of a guest that runs, or does not."""
        name = self.some(self.sound_guests(
            lambda guest: guest.stored and guest.live in (None, guest.stored)))
        if not name:
            return None
        guest, snapshot = self.model.guests[name], self.new_name("s")
        before = guest.stored
        self.domains[name].snapshotCreateXML(SNAPSHOT.format(name=snapshot),
                                             libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
        path = f"{os.path.splitext(before)[0]}.{snapshot}"
        self.model.files[path] = before
        guest.snapshots.append((before, path))
        guest.files.append(path)
        guest.stored = path
        guest.live = guest.live and path
        return f"{name}: {path}"

    def is_base(self, path):
        return path in self.model.files.values()

    def step_start(self):
        """Its processor stands still: what is asked is who holds which file."""
        name = self.some(self.sound_guests(
            lambda guest: not guest.live and not self.is_base(guest.stored)))
        if name:
            self.domains[name].createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            self.model.guests[name].live = self.model.guests[name].stored
        return name

    def step_stop(self):
        name = self.some(name for name, guest in self.model.guests.items() if guest.live)
        if name:
            self.domains[name].destroy()
            self.model.guests[name].live = None
            self.forget_unless_defined(name)
        return name

    def forget_unless_defined(self, name):
        guest = self.model.guests[name]
        if not guest.live and not guest.stored:
            del self.model.guests[name], self.domains[name]

    def step_undefine(self):
        """It goes on running when it runs; its disks stay in any case."""
        name = self.some(name for name, guest in self.model.guests.items() if guest.stored)
        if name:
            self.domains[name].undefineFlags(hypervisor.UNDEFINE_ALL)
            guest = self.model.guests[name]
            guest.stored, guest.snapshots = None, []
            self.forget_unless_defined(name)
        return name

    def step_rename(self):
        name = self.some(name for name, guest in self.model.guests.items()
                         if guest.stored and not guest.live and not guest.snapshots)
        if not name:
            return None
        to = self.new_name("renamed")
        self.domains[name].rename(to, 0)
        self.domains[to] = self.domains.pop(name)
        guest = self.model.guests[to] = self.model.guests.pop(name)
        guest.name = to
        return f"{name} is {to}"

    def step_move(self):
        """A guest's definition gets a disk on another image; its snapshots and, if it runs, itself stay
        with the old one."""
        name = self.some(name for name, guest in self.model.guests.items()
                         if guest.stored and name.startswith("web"))
        image = self.some(self.model.ready())
        if not name or not image:
            return None
        disk = self.make_overlay(self.model.path(image), f"{self.new_name('moved')}.qcow")
        guest = self.model.guests[name]
        guest.stored = disk
        guest.files.append(disk)
        self.host.guest(name, disk)
        return f"{name}: {disk} on {image}"

    def step_lose_disk(self):
        """Of a guest that does not run, outside of any pool."""
        def can_be_lost(guest):
            return (not guest.live and guest.stored and not self.model.is_volume(guest.stored)
                    and not self.is_base(guest.stored))

        name = self.some(self.sound_guests(can_be_lost))
        if name:
            self.remove_file(self.model.guests[name].stored)
        return name

    def step_remove_guest(self):
        """With its disks, unless another's stand on them."""
        name = self.some(self.model.guests)
        if not name:
            return None
        guest, domain = self.model.guests.pop(name), self.domains.pop(name)
        if guest.live:
            domain.destroy()
        if guest.stored:
            domain.undefineFlags(hypervisor.UNDEFINE_ALL)
        for path in reversed(guest.files):
            if path in self.model.files and not self.is_base(path):
                self.remove_file(path)
        return name

    def remove_file(self, path):
        volume = self.model.is_volume(path)
        del self.model.files[path]
        if volume:
            for pool in self.model.pools:
                self.host.pool(pool)
            self.host.libvirt.storageVolLookupByPath(path).delete(0)
        else:
            os.unlink(path)

    # ---- what others do

    def step_foreign_volume(self):
        """Of nobody, or a disk for a guest that is not defined yet."""
        image = self.some(self.model.ready())
        if image and self.choose.random() < 0.5:
            return self.make_overlay(self.model.path(image), f"{self.new_name('waiting')}.qcow")
        path = self.model.path(f"{self.new_name('foreign')}.qcow2")
        hypervisor.qemu_img("create", "-q", "-f", "qcow2", path, "1M")
        self.model.files[path] = None
        return path

    def step_remove_leftover(self):
        """A file that no guest names and nothing stands on."""
        needed = set().union(*(guest.needs for guest in self.model.guests.values()))
        path = self.some(path for path in self.model.files if path not in needed
                         and not self.is_base(path)
                         and not os.path.basename(path).startswith(uvtool_view.PREFIX))
        if path:
            self.remove_file(path)
        return path

    def step_retire(self):
        name = self.some(self.model.ready())
        if name:
            self.host.retire(name)
            del self.model.metadata[name]
        return name

    def step_remove_image(self):
        """By virsh, and its metadata stays."""
        name = self.some(name for name in self.model.ready()
                         if not self.model.users(self.model.path(name)))
        if name:
            self.remove_file(self.model.path(name))
        return name
