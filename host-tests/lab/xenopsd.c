/*
 * xenopsd DOMID: soft reset a domain that has shut down for one, as XCP-ng's xenopsd does.
 *
 * Runs in dom0. The domain gets new event channels for xenstore and console, and xenstored is told
 * of it again with the new one. Its disks are left as they are: the backends are still connected to
 * the crashed kernel's rings.
 * Source: xen-api, ocaml/xenopsd/xc/domain.ml (soft_reset, create_channels), xenctrlext_stubs.c.
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenctrl.h>
#include <xenstore.h>
#include <xen/hvm/params.h>

static const char *const removed[] = {
    "control/feature-suspend",      "control/feature-poweroff", "control/feature-reboot",
    "control/feature-vcpu-hotplug", "control/feature-balloon",  "memory/target",
};

static uint32_t domid;

static const char *path(const char *node)
{
    static char buffer[128];

    snprintf(buffer, sizeof(buffer), "/local/domain/%" PRIu32 "/%s", domid, node);
    return buffer;
}

static int channel(xc_interface *xc)
{
    xc_evtchn_port_or_error_t port = xc_evtchn_alloc_unbound(xc, domid, 0);

    if (port < 0)
        err(1, "domain %" PRIu32 ": a new event channel", domid);
    return port;
}

static void write_number(struct xs_handle *store, const char *node, int number)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", number);
    if (!xs_write(store, XBT_NULL, path(node), text, strlen(text)))
        err(1, "%s", path(node));
}

static void introduce(struct xs_handle *store, int port)
{
    char *text = xs_read(store, XBT_NULL, path("store/ring-ref"), NULL);

    if (!text || !xs_introduce_domain(store, domid, strtoul(text, NULL, 10), port))
        err(1, "domain %" PRIu32 ": introduce", domid);
    free(text);
}

int main(int argc, char **argv)
{
    xc_interface *xc = xc_interface_open(NULL, NULL, 0);
    struct xs_handle *store = xs_open(0);
    int store_port, console_port;

    if (argc != 2 || !xc || !store)
        errx(1, "usage: xenopsd DOMID, in dom0");
    domid = atoi(argv[1]);
    if (xc_domain_pause(xc, domid) || xc_domain_soft_reset(xc, domid))
        err(1, "domain %" PRIu32 ": soft reset", domid);
    store_port = channel(xc);
    console_port = channel(xc);
    introduce(store, store_port);
    write_number(store, "store/port", store_port);
    write_number(store, "console/port", console_port);
    if (xc_hvm_param_set(xc, domid, HVM_PARAM_STORE_EVTCHN, store_port) ||
        xc_hvm_param_set(xc, domid, HVM_PARAM_CONSOLE_EVTCHN, console_port))
        err(1, "domain %" PRIu32 ": its parameters", domid);
    for (unsigned int i = 0; i < sizeof(removed) / sizeof(removed[0]); i++)
        xs_rm(store, XBT_NULL, path(removed[i]));
    if (xc_domain_unpause(xc, domid))
        err(1, "domain %" PRIu32 ": unpause", domid);
    return 0;
}
