/*
 * lab-domain: operations on a domain that the lab needs and xl lacks.
 *
 *   lab-domain ring DOMID     print the indexes of its xenstore ring, without asking xenstored:
 *                             "REQ_PROD REQ_CONS RSP_PROD RSP_CONS", decimal
 *   lab-domain block DOMID REF  print the indexes of a block ring that it granted to dom0: "REQ_PROD
 *                             RSP_PROD", decimal
 *   lab-domain resume DOMID   let a domain go on that has shut down; nothing of it is changed
 *   lab-domain memory DOMID COUNT  write its frames from 0 on to standard output; zeros for those
 *                             that it has not
 *   lab-domain time DOMID     print how long its vCPUs have run, ns
 *   lab-domain ends LOG       append "DOMID REASON" to a file whenever a domain shuts down, and close
 *                             the disks of one that is to be soft reset; never ends
 *
 * Rule: xenstored is told that a domain was resumed; otherwise it would not report its next end.
 * Rule: libxl waits ten seconds for the front ends of a domain that it soft resets, although no
 * kernel serves them, unless their state is Closed. So `ends` writes Closed, for the domains that
 * have a node below CLOSE. It does so in a transaction, and only while the domain is down and the
 * front end is Connected, because the crash kernel uses the same nodes later.
 * Source: xenguest.h (xc_domain_resume; not "fast", which would change the hypercall's result),
 * docs/misc/xenstore.txt (RESUME, @releaseDomain), xen/include/public/io/xs_wire.h, xenbus.h,
 * ring.h (the head of a ring), tools/libs/light/libxl_device.c (device removal).
 */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
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
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

#define CLOSE "/lab/close"
#define FRAMES 256 /* that are mapped at a time */
#define DOMAINS 64 /* most domains that `ends` follows; the lab has a few */

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

static void write_memory(uint32_t domid, uint64_t count)
{
    static const char zeros[XC_PAGE_SIZE];
    static char page[XC_PAGE_SIZE];
    xenforeignmemory_handle *memory = xenforeignmemory_open(NULL, 0);
    xen_pfn_t gfns[FRAMES];
    int errors[FRAMES];

    if (!memory)
        err(1, "domain %" PRIu32 ": its memory", domid);
    for (uint64_t first = 0; first < count; first += FRAMES) {
        size_t n = count - first < FRAMES ? count - first : FRAMES;
        const char *frames;

        for (size_t i = 0; i < n; i++)
            gfns[i] = first + i;
        frames = xenforeignmemory_map(memory, domid, PROT_READ, n, gfns, errors);
        if (!frames)
            err(1, "domain %" PRIu32 ": frame 0x%" PRIx64, domid, first);
        for (size_t i = 0; i < n; i++) {
            /* A file system may not take it straight out of another domain's memory. */
            memcpy(page, errors[i] ? zeros : frames + i * XC_PAGE_SIZE, XC_PAGE_SIZE);
            if (fwrite(page, XC_PAGE_SIZE, 1, stdout) != 1)
                err(1, "standard output");
        }
        xenforeignmemory_unmap(memory, (void *)frames, n);
    }
    if (fflush(stdout))
        err(1, "standard output");
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

static bool shut_down(const xc_domaininfo_t *info, unsigned int *reason)
{
    *reason = info->flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;
    return info->flags & XEN_DOMINF_shutdown;
}

/* Returns whether the domain is down for a soft reset now. */
static bool resets(xc_interface *xc, uint32_t domid)
{
    xc_domaininfo_t info;
    unsigned int reason;

    if (xc_domain_getinfolist(xc, domid, 1, &info) != 1 || info.domain != domid)
        return false;
    return shut_down(&info, &reason) && reason == SHUTDOWN_soft_reset;
}

static bool has_state(struct xs_handle *store, xs_transaction_t t, const char *path, int state)
{
    char *text = xs_read(store, t, path, NULL);
    bool has = text && atoi(text) == state;

    free(text);
    return has;
}

/* Returns whether dom0's blkback serves a device. QEMU's backend ends at once by itself. */
static bool is_blkback(struct xs_handle *store, xs_transaction_t t, const char *path)
{
    static const char prefix[] = "/local/domain/0/backend/vbd/";
    char *text = xs_read(store, t, path, NULL);
    bool is = text && !strncmp(text, prefix, strlen(prefix));

    free(text);
    return is;
}

static void close_disk(xc_interface *xc, struct xs_handle *store, uint32_t domid,
                       const char *device)
{
    char path[128], backend[128], closed[8];
    xs_transaction_t t;
    bool done;

    snprintf(path, sizeof(path), "/local/domain/%" PRIu32 "/device/vbd/%s/state", domid, device);
    snprintf(backend, sizeof(backend), "/local/domain/%" PRIu32 "/device/vbd/%s/backend", domid,
             device);
    snprintf(closed, sizeof(closed), "%d", XenbusStateClosed);
    do {
        t = xs_transaction_start(store);
        if (t == XBT_NULL)
            return;
        /* The nodes are read before the domain's state: so they are those of the crashed kernel. */
        done = has_state(store, t, path, XenbusStateConnected) && is_blkback(store, t, backend) &&
               resets(xc, domid) && xs_write(store, t, path, closed, strlen(closed));
    } while (!xs_transaction_end(store, t, !done) && done && errno == EAGAIN);
}

static void close_disks(xc_interface *xc, struct xs_handle *store, uint32_t domid)
{
    unsigned int count = 0;
    char path[64], **devices;
    void *marked;

    snprintf(path, sizeof(path), CLOSE "/%" PRIu32, domid);
    marked = xs_read(store, XBT_NULL, path, NULL);
    if (!marked)
        return;
    free(marked);
    snprintf(path, sizeof(path), "/local/domain/%" PRIu32 "/device/vbd", domid);
    devices = xs_directory(store, XBT_NULL, path, &count);
    for (unsigned int i = 0; devices && i < count; i++)
        close_disk(xc, store, domid, devices[i]);
    free(devices);
}

static void note(const char *log, uint32_t domid, unsigned int reason)
{
    FILE *file = fopen(log, "a"); /* opened each time, because the lab moves its logs */

    if (!file)
        err(1, "%s", log);
    fprintf(file, "%" PRIu32 " %u\n", domid, reason);
    fclose(file);
}

/* Returns whether a domain has shut down since `before`: it was up then, or it has run since. */
static bool again(const xc_domaininfo_t *now, const xc_domaininfo_t *before, int count)
{
    unsigned int reason;

    for (int i = 0; i < count; i++)
        if (before[i].domain == now->domain)
            return !shut_down(&before[i], &reason) || before[i].cpu_time != now->cpu_time;
    return true;
}

static void ends(xc_interface *xc, const char *log)
{
    const struct sched_param first = { .sched_priority = 1 };
    static xc_domaininfo_t now[DOMAINS], before[DOMAINS];
    struct xs_handle *store;
    unsigned int number, reason;
    int count, known = 0;

    /* xl gets the same event and may destroy the domain, so this process must run first. The thread
     * that reads for libxenstore inherits the priority. */
    if (sched_setscheduler(0, SCHED_FIFO, &first))
        err(1, "priority");
    store = xs_open(0);
    if (!store || !xs_watch(store, "@releaseDomain", "ends"))
        err(1, "xenstored");
    for (;;) {
        free(xs_read_watch(store, &number));
        count = xc_domain_getinfolist(xc, 1, DOMAINS, now);
        if (count < 0)
            err(1, "list of domains");
        for (int i = 0; i < count; i++) {
            if (!shut_down(&now[i], &reason) || !again(&now[i], before, known))
                continue;
            if (reason == SHUTDOWN_soft_reset)
                close_disks(xc, store, now[i].domain);
            note(log, now[i].domain, reason);
        }
        known = count;
        memcpy(before, now, sizeof(before));
    }
}

int main(int argc, char **argv)
{
    xc_interface *xc = xc_interface_open(NULL, NULL, 0);

    if (argc != 3 && argc != 4)
        errx(2, "usage: lab-domain ring|resume|time DOMID, block DOMID REF, memory DOMID COUNT, "
                "ends LOG");
    if (!xc)
        err(1, "Xen's control interface");
    if (!strcmp(argv[1], "ring"))
        print_ring(xc, atoi(argv[2]));
    else if (!strcmp(argv[1], "block") && argc == 4)
        print_block(atoi(argv[2]), atoi(argv[3]));
    else if (!strcmp(argv[1], "memory") && argc == 4)
        write_memory(atoi(argv[2]), strtoull(argv[3], NULL, 10));
    else if (!strcmp(argv[1], "resume"))
        resume(xc, atoi(argv[2]));
    else if (!strcmp(argv[1], "time"))
        print_time(xc, atoi(argv[2]));
    else if (!strcmp(argv[1], "ends"))
        ends(xc, argv[2]);
    else
        errx(2, "lab-domain %s: ring, block, memory, resume, time or ends expected", argv[1]);
    return 0;
}
