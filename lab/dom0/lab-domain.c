/*
 * lab-domain: what the lab asks dom0 to do with a domain and xl cannot.
 *
 *   lab-domain ring DOMID     print the indexes of its xenstore ring, without xenstored's help:
 *                             "REQ_PROD REQ_CONS RSP_PROD RSP_CONS", decimal
 *   lab-domain block DOMID REF  print the indexes of a block ring that it granted to dom0: "REQ_PROD
 *                             RSP_PROD", decimal
 *   lab-domain resume DOMID   let a domain go on that has shut down; nothing of it is changed
 *   lab-domain time DOMID     print how long its vCPUs have run, ns
 *
 * Rule: a domain that was resumed is told to xenstored too, which else keeps its next end to itself.
 * Source: xenguest.h (xc_domain_resume; not "fast", which would change the hypercall's result),
 * docs/misc/xenstore.txt (RESUME), xen/include/public/io/xs_wire.h, ring.h (the head of a ring).
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xengnttab.h>
#include <xenguest.h>
#include <xenstore.h>
#include <xen/hvm/params.h>
#include <xen/io/xs_wire.h>

static void print_ring(xc_interface *xc, uint32_t domid)
{
    const struct xenstore_domain_interface *ring;
    xenforeignmemory_handle *memory = xenforeignmemory_open(NULL, 0);
    xen_pfn_t gfn;
    uint64_t value;
    int error = 0;

    if (xc_hvm_param_get(xc, domid, HVM_PARAM_STORE_PFN, &value))
        err(1, "domain %" PRIu32 ": HVM_PARAM_STORE_PFN", domid);
    gfn = value;
    ring = memory ? xenforeignmemory_map(memory, domid, PROT_READ, 1, &gfn, &error) : NULL;
    if (!ring || error)
        err(1, "domain %" PRIu32 ": its xenstore page 0x%" PRIx64, domid, value);
    printf("%u %u %u %u\n", ring->req_prod, ring->req_cons, ring->rsp_prod, ring->rsp_cons);
}

static void print_block(uint32_t domid, uint32_t ref)
{
    xengnttab_handle *grants = xengnttab_open(NULL, 0);
    const volatile uint32_t *ring;

    ring = grants ? xengnttab_map_grant_ref(grants, domid, ref, PROT_READ) : NULL;
    if (!ring)
        err(1, "domain %" PRIu32 ": grant %" PRIu32, domid, ref);
    printf("%u %u\n", ring[0], ring[2]);
}

static void resume(xc_interface *xc, uint32_t domid)
{
    struct xs_handle *store = xs_open(0);

    if (!store || xc_domain_resume(xc, domid, 0) || !xs_resume_domain(store, domid))
        err(1, "domain %" PRIu32 ": resume", domid);
    xs_close(store);
}

static void print_time(xc_interface *xc, uint32_t domid)
{
    xc_domaininfo_t info;

    if (xc_domain_getinfolist(xc, domid, 1, &info) != 1 || info.domain != domid)
        errx(1, "domain %" PRIu32 " is not there", domid);
    printf("%" PRIu64 "\n", (uint64_t)info.cpu_time);
}

int main(int argc, char **argv)
{
    xc_interface *xc = xc_interface_open(NULL, NULL, 0);

    if (argc != 3 && argc != 4)
        errx(2, "usage: lab-domain ring|resume|time DOMID, lab-domain block DOMID REF");
    if (!xc)
        err(1, "Xen's control interface");
    if (!strcmp(argv[1], "ring"))
        print_ring(xc, atoi(argv[2]));
    else if (!strcmp(argv[1], "block") && argc == 4)
        print_block(atoi(argv[2]), atoi(argv[3]));
    else if (!strcmp(argv[1], "resume"))
        resume(xc, atoi(argv[2]));
    else if (!strcmp(argv[1], "time"))
        print_time(xc, atoi(argv[2]));
    else
        errx(2, "lab-domain %s: ring, block, resume or time expected", argv[1]);
    return 0;
}
