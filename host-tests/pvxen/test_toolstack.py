"""Domains of the embedded Xen: made, run, shut down, reset, resumed, destroyed."""

import struct

import pytest
from fixtures.stack import Stack

import hw
from pvxen.crashedkernel import CrashedKernel
from pvxen.evtchn import XenRefuses
from pvxen.machine import DOM0, Shutdown
from pvxen.sink import Memory
from pvxen.toolstack import SERVERS, Toolstack
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.evtchn import EventChannels
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls
from xenpv.loop import SECOND
from xenpv.xenbus import Device

BLOCK = bytes(range(256)) * 16


def with_store(work):
    """Run work(store, loop) on the client, in the domain that `hw` is about."""
    stack = Stack()
    return stack.run(lambda: work(stack.store, stack.loop))


async def round_trip(store, loop):
    await store.write("data/x", "value")
    return await store.read_text("data/x")


def write_block(guest, sector=0):
    """Run the whole stack of drivers: one block to xvdb."""
    guest.machine.ram[0x200000:0x201000] = BLOCK

    async def work(store, loop):
        grants = GrantTable(Hypercalls())
        device = Device(store, loop, "device/vbd/51728")
        await device.find()
        disk = BlkFront(loop, grants, device)
        await disk.connect()
        await disk.write(sector, 0x200, 8)
        await disk.flush()
        await disk.close()

    with_store(work)


def shut_down(reason):
    Hypercalls().shutdown(reason)


class TestSeveralDomains:
    @pytest.mark.parametrize("seed", range(6))
    def test_each_has_its_own_memory_and_ports_and_all_share_the_store(self, seed):
        xen = Toolstack(seed)
        xen.create(1)
        xen.create(2)
        for domid in (1, 2, 1):
            with xen.running(domid) as domain:
                assert with_store(round_trip) == "value"
                assert domain.store.read(f"{domain.home}/data/x") == "value"

    def test_a_step_for_one_that_does_not_run_leaves_the_one_that_runs_alone(self):
        xen = Toolstack()
        one, two = xen.create(1), xen.create(2)
        with xen.running(2):
            hw.wr32(two.ring.page + abi.XENSTORE_RING_REQ_PROD, 16)  # a header of zeroes
            xen.evtchn.send(2, two.machine.params[abi.HVM_PARAM_STORE_EVTCHN])
        with xen.running(1):
            xen.settle()
            assert one.ring.indexes() == (0, 0, 0, 0)
        with xen.running(2):
            assert two.ring.indexes()[0] == 16
            assert two.ring.indexes()[3] > 16

    def test_one_can_bind_a_channel_of_another(self):
        xen = Toolstack()
        xen.create(1)
        xen.create(2)
        with xen.running(1):
            offered = EventChannels(Hypercalls()).alloc_unbound(2)
        with xen.running(2):
            channels = EventChannels(Hypercalls())
            channels.send(channels.bind_interdomain(1, offered))
        with xen.running(1):
            assert EventChannels(Hypercalls()).take(offered)

    def test_the_watchdog_of_one_that_does_not_run_ends_only_that_one(self):
        xen = Toolstack()
        xen.create(1)
        xen.create(2)
        with xen.running(1):
            hw.watchdog(5)
        with xen.running(2) as two:
            Hypercalls().sleep(10 * SECOND)
            assert xen.domain(1).shutdown_reason == abi.SHUTDOWN_watchdog
            assert two.shutdown_reason is None

    def test_two_of_the_same_number_are_refused(self):
        xen = Toolstack()
        xen.create(1)
        with pytest.raises(ValueError, match="domain 1 is there already"):
            xen.create(1)
        assert xen.create().domid == 2

    def test_hw_is_what_it_was_after_the_block(self, machine):
        xen = Toolstack()
        xen.create(3)
        with xen.running(3):
            hw.mem(0x5000, 1)[0] = 1
        assert hw.mem(0x5000, 1)[0] == 0
        assert machine.ram[0x5000] == 0


class TestShutdown:
    @pytest.mark.parametrize("reason", [abi.SHUTDOWN_poweroff, abi.SHUTDOWN_crash])
    def test_its_reason_is_kept_and_the_store_tells_of_it(self, reason):
        xen = Toolstack()
        domain = xen.create()
        told = []
        xen.store.watch("@releaseDomain", lambda: told.append(domain.shutdown_reason))
        with xen.running(1):
            told.clear()
            shut_down(reason)
            raise AssertionError("guest code ran on")
        assert domain.shutdown_reason == reason
        assert told == [reason]

    def test_a_domain_that_shut_down_or_is_paused_cannot_run(self):
        xen = Toolstack()
        xen.create()
        xen.pause(1)
        with pytest.raises(ValueError, match="paused"), xen.running(1):
            pass
        xen.unpause(1)
        with xen.running(1):
            shut_down(abi.SHUTDOWN_reboot)
        with pytest.raises(ValueError, match="shut down, reason 1"), xen.running(1):
            pass

    def test_the_shutdown_of_another_machine_is_not_swallowed(self, machine):
        xen = Toolstack()
        xen.create()
        with pytest.raises(Shutdown), xen.running(1), hw.attached(machine):
            shut_down(abi.SHUTDOWN_crash)


class TestSoftReset:
    def crashed(self, **options):
        """A domain whose kernel used FIFO and a disk, and crashed into a soft reset."""
        xen = Toolstack(server=options.pop("server", SERVERS[0]))
        domain = xen.create(**options)
        domain.disk("xvdb", Memory(1 << 20))
        with xen.running(1):
            crashed = CrashedKernel(domain)
            crashed.use_fifo()
            crashed.connect(domain.disks["xvdb"])
            hw.watchdog(30)
            assert with_store(round_trip) == "value"
            shut_down(abi.SHUTDOWN_soft_reset)
        return xen, domain

    def test_every_port_is_closed_and_the_store_and_console_have_new_ones(self):
        xen, domain = self.crashed()
        earlier = len(xen.evtchn.of(1))
        xen.soft_reset(1)
        assert domain.machine.events.name == "2l"
        params = domain.machine.params
        new = [params[abi.HVM_PARAM_STORE_EVTCHN], params[abi.HVM_PARAM_CONSOLE_EVTCHN]]
        assert [port.number for port in xen.evtchn.of(1)] == new
        assert earlier > 2
        assert domain.shutdown_reason is None

    def test_backends_let_go_before_and_what_is_still_mapped_is_logged(self):
        xen, domain = self.crashed()
        domain.machine.gnttab.set_entry(40, abi.GTF_permit_access, DOM0, 0x30)
        mapping = domain.machine.gnttab.map(40, DOM0, readonly=True)
        xen.soft_reset(1)
        assert domain.machine.gnttab.mappings == [mapping]
        assert xen.hypervisor.log == ["d1 has active grant 28 (GFN 30)"]

    def test_shared_info_and_vcpu_info_leave_the_guests_memory(self):
        xen, domain = self.crashed()
        gfn = domain.machine.shared_info_page.gfn
        domain.machine.register_vcpu_info(0, 0x40, 0)
        xen.soft_reset(1)
        assert domain.machine.shared_info_page.gfn is None
        assert bytes(domain.machine.page(gfn)) == bytes(4096)
        with xen.running(1):
            hw.mem(0x40000, 64)[:] = bytes(64)
            assert with_store(round_trip) == "value"
        assert not any(domain.machine.ram[0x40000:0x40040])

    def test_the_crashed_kernels_watchdog_still_bites(self):
        xen, domain = self.crashed()
        xen.soft_reset(1)
        with xen.running(1):
            hw.watchdog(100)
            Hypercalls().sleep(50 * SECOND)
        assert domain.shutdown_reason == abi.SHUTDOWN_watchdog

    @pytest.mark.parametrize("server", SERVERS)
    def test_the_ring_begins_at_0_or_where_it_was_as_the_server_has_it(self, server):
        xen, domain = self.crashed(server=server)
        before = domain.indexes()
        xen.soft_reset(1)
        after = (0, 0) if server == "C xenstored" else before
        assert before > (0, 0)
        assert domain.indexes() == after
        with xen.running(1):
            assert domain.ring.indexes() == (after[0], after[0], after[1], after[1])
            assert with_store(round_trip) == "value"

    def test_the_next_kernel_finds_its_disk_as_new(self):
        xen, domain = self.crashed()
        earlier = domain.disks["xvdb"]
        xen.soft_reset(1)
        disk = domain.disks["xvdb"]
        xen.settle()
        assert disk is not earlier
        assert disk.states == [abi.XenbusStateInitWait]
        assert domain.store.read("/local/domain/1/device/vbd/51728/state") == "1"
        with xen.running(1):
            write_block(domain)
        assert disk.sink.data[:4096] == BLOCK
        assert earlier.instance is None

    def test_a_domain_that_runs_cannot_be_reset(self):
        xen = Toolstack()
        xen.create()
        with pytest.raises(XenRefuses):
            xen.soft_reset(1)

    def test_memory_stays_and_the_next_kernel_has_its_pages_for_itself(self):
        xen, domain = self.crashed()
        domain.machine.ram[0x300000:0x300004] = b"dump"
        xen.soft_reset(1)
        with xen.running(1):
            assert hw.alloc_pages(1) == domain.machine.region[0]
        assert domain.machine.ram[0x300000:0x300004] == b"dump"


class TestReintroduce:
    """XCP-ng's soft reset."""

    def crashed(self, **options):
        xen = Toolstack(**options)
        domain = xen.create()
        domain.disk("xvdb", Memory(1 << 20))
        with xen.running(1):
            crashed = CrashedKernel(domain)
            crashed.use_fifo()
            crashed.connect(domain.disks["xvdb"])
            with_store(round_trip)
            shut_down(abi.SHUTDOWN_soft_reset)
        return xen, domain

    def test_store_and_console_have_new_ports_and_all_others_are_closed(self):
        xen, domain = self.crashed()
        xen.reintroduce(1)
        assert domain.machine.events.name == "2l"
        params = domain.machine.params
        new = [params[abi.HVM_PARAM_STORE_EVTCHN], params[abi.HVM_PARAM_CONSOLE_EVTCHN]]
        assert [port.number for port in xen.evtchn.of(1)] == new
        ports = [domain.store.read(f"{domain.home}/{name}/port") for name in ("store", "console")]
        assert ports == [str(port) for port in new]
        with xen.running(1):
            assert with_store(round_trip) == "value"

    def test_the_disk_is_still_connected_to_the_crashed_kernels_ring(self):
        xen, domain = self.crashed()
        disk = domain.disks["xvdb"]
        xen.reintroduce(1)
        xen.settle()
        assert domain.disks["xvdb"] is disk
        assert disk.states[-1] == abi.XenbusStateConnected
        assert disk.instance is not None
        with xen.running(1):
            write_block(domain)
        assert disk.sink.data[:4096] == BLOCK

    @pytest.mark.parametrize("server", SERVERS)
    def test_the_ring_begins_at_0_or_where_it_was_as_the_server_has_it(self, server):
        xen, domain = self.crashed(server=server)
        before = domain.indexes()
        xen.reintroduce(1)
        assert domain.indexes() == ((0, 0) if server == "C xenstored" else before)


class TestResume:
    def test_nothing_is_reset_and_the_next_kernel_goes_on_from_there(self):
        xen = Toolstack()
        domain = xen.create()
        domain.disk("xvdb", Memory(1 << 20))
        with xen.running(1):
            crashed = CrashedKernel(domain)
            crashed.use_grants_v2()
            crashed.use_fifo()
            crashed.connect(domain.disks["xvdb"])
            with_store(round_trip)
            shut_down(abi.SHUTDOWN_soft_reset)
        before, ports = domain.indexes(), xen.evtchn.of(1)
        xen.resume(1)
        assert domain.indexes() == before
        assert xen.evtchn.of(1) == ports
        assert domain.machine.events.name == "fifo"
        assert domain.machine.gnttab.version == 2
        with xen.running(1):
            assert with_store(round_trip) == "value"
            write_block(domain)
        assert domain.disks["xvdb"].sink.data[:4096] == BLOCK

    def test_the_store_tells_of_the_next_shutdown_again(self):
        xen = Toolstack()
        xen.create()
        told = []
        xen.store.watch("@releaseDomain", lambda: told.append(1))
        told.clear()
        for _ in range(2):
            with xen.running(1):
                shut_down(abi.SHUTDOWN_soft_reset)
            xen.resume(1)
        assert told == [1, 1]


class TestDestroy:
    def test_nothing_of_the_domain_is_left(self):
        xen = Toolstack()
        domain = xen.create()
        disk = domain.disk("xvdb", Memory(1 << 20))
        told = []
        with xen.running(1):
            CrashedKernel(domain).connect(disk)
            hw.watchdog(5)
        xen.store.watch("@releaseDomain", lambda: told.append(1))
        told.clear()
        xen.destroy(1)
        assert told == [1]
        assert xen.evtchn.of(1) == []
        assert domain.machine.gnttab.mappings == []
        assert not xen.store.exists("/local/domain/1")
        assert not xen.store.exists(disk.path)
        xen.clock.advance(xen.clock.now + 10 * SECOND)
        assert domain.shutdown_reason is None
        with pytest.raises(ValueError, match="domain 1 is not there"):
            xen.domain(1)

    def test_its_number_can_be_used_again(self):
        xen = Toolstack()
        for _ in range(2):
            xen.create(7)
            with xen.running(7):
                assert with_store(round_trip) == "value"
            xen.destroy(7)


def test_nodes_and_parameters_of_a_new_domain_are_those_of_libxl():
    xen = Toolstack()
    domain = xen.create(5, name="five")
    params, read = domain.machine.params, xen.store.read
    assert read("/local/domain/5/name") == "five"
    assert int(read("/local/domain/5/store/port")) == params[abi.HVM_PARAM_STORE_EVTCHN]
    assert int(read("/local/domain/5/console/ring-ref")) == params[abi.HVM_PARAM_CONSOLE_PFN]
    gfn = params[abi.HVM_PARAM_STORE_PFN]
    entry = struct.unpack_from("<HHI", domain.machine.gnttab.frames[0].view, 8)
    assert entry == (abi.GTF_permit_access, DOM0, gfn)
