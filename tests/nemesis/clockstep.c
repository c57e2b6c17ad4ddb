/* A wall clock that can be stepped under a running process: LD_PRELOAD, with NEMESIS_CLOCK naming a file of 8 bytes.
 *
 * The file holds an offset in nanoseconds, added to CLOCK_REALTIME as the process reads it; the monotonic clock, sleeps
 * and waits stay true, as they do when an operator or NTP steps a real clock. libfaketime 0.9.10 would be the usual
 * choice; under it Python 3.11's time.sleep fails with EINVAL (its clock_nanosleep), so nothing of ours starts at all.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset_ns;
static int (*true_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_clock(void) {
    true_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *name = getenv("NEMESIS_CLOCK");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(0, sizeof *offset_ns, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) offset_ns = page;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *t) {
    if (!true_gettime) open_clock(); /* somebody's constructor was before ours */
    int failed = true_gettime(id, t);
    if (!failed && offset_ns && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        int64_t ns = t->tv_nsec + *offset_ns % 1000000000;
        t->tv_sec += *offset_ns / 1000000000 + (ns < 0 ? -1 : ns / 1000000000);
        t->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    (void)zone;
    struct timespec t;
    int failed = clock_gettime(CLOCK_REALTIME, &t);
    if (!failed && tv) *tv = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
    return failed;
}

time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
