/*
 * lab-pvdump ARGUMENTS...: run a `pvdump` command in dom0 without a start of Python; see server.py.
 *
 * Rule: it behaves as `pvdump` does. The command gets its streams, folder and environment; it
 * passes signals on, and it ends with the command's status. The number of the command's process is
 * written to the file $LAB_PIDFILE, for signals that cannot be passed on.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVER "/run/pvdump.sock"
#define MOST (1 << 17)

static const int passed[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 };
static volatile sig_atomic_t process;

static void pass(int signal)
{
    int saved = errno;

    kill(process, signal);
    errno = saved;
}

static char *put(char *at, const char *end, const char *text)
{
    size_t size = strlen(text) + 1;

    if (size > (size_t)(end - at))
        errx(125, "arguments and environment are more than %d bytes", MOST);
    return (char *)memcpy(at, text, size) + size;
}

static void request(int server, int argc, char **argv)
{
    static char text[MOST], folder[4096], count[16];
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(3 * sizeof(int))];
    } extra = { .header = { .cmsg_len = CMSG_LEN(3 * sizeof(int)),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS } };
    const int streams[] = { 0, 1, 2 };
    const char *end = text + sizeof(text);
    struct iovec data = { .iov_base = text };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
    char *at;

    if (!getcwd(folder, sizeof(folder)))
        err(125, "current folder");
    snprintf(count, sizeof(count), "%d", argc - 1);
    at = put(put(text, end, folder), end, count);
    for (int i = 1; i < argc; i++)
        at = put(at, end, argv[i]);
    for (char **setting = environ; *setting; setting++)
        at = put(at, end, *setting);
    data.iov_len = at - text;
    memcpy(CMSG_DATA(&extra.header), streams, sizeof(streams));
    message.msg_control = extra.space;
    message.msg_controllen = sizeof(extra.space);
    if (sendmsg(server, &message, 0) < 0)
        err(125, "%s", SERVER);
}

static int number(int server)
{
    char text[16] = "";
    ssize_t size;

    do
        size = recv(server, text, sizeof(text) - 1, 0);
    while (size < 0 && errno == EINTR);
    if (size <= 0)
        errx(125, "%s: the server has ended", SERVER);
    return atoi(text);
}

int main(int argc, char **argv)
{
    const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SERVER };
    const char *name = getenv("LAB_PIDFILE");
    struct sigaction action = { .sa_handler = pass, .sa_flags = SA_RESTART };
    int server = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), status;
    sigset_t all, before;
    FILE *file;

    if (server < 0 || connect(server, (const struct sockaddr *)&address, sizeof(address)))
        err(125, "%s", SERVER);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    request(server, argc, argv);
    process = number(server);
    for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++)
        sigaction(passed[i], &action, NULL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (name) {
        file = fopen(name, "w");
        if (!file || fprintf(file, "%d\n", (int)process) < 0 || fclose(file))
            err(125, "%s", name);
    }
    status = number(server);
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
    return 128 + WTERMSIG(status);
}
