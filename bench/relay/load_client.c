// A load client for streaming chat-completion proxies. One thread, epoll.
//
//   gcc -O2 -o load_client load_client.c
//   ./load_client -p PORT [-c streams] [-r rate] [-n chunks] [-b burst] [-s sync] [-S stamp_every]
//                 [-w warm_seconds] [-m measure_seconds] [-q probes] [-Q probe_chunks] [-t think_ms]
//
// `streams` connections hold one stream each, `chunks` long at `rate` a second; one that ends is begun again.
// They start spread over the first 60 % of the warm-up. `probes` more connections run short streams one after
// another, with `think_ms` between, to measure the time to the first chunk under that load. What arrives in the
// window after the warm-up counts. Latency, one way: now minus the stamp that fake_upstream puts into the text;
// every chunk but one in `stamp_every` is without, so chunks are counted by their stamps.
//
// Prints "begin" and "end" where the window has them, for whoever watches the proxy's CPU, then one JSON line.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_HEAD_BYTES = 16384, STAMP_PAIRS = 4, STAMP_BYTES = 2 + 3 * STAMP_PAIRS, KEPT_BYTES = 60 };
static const uint64_t STAMP_PERIOD = 208827064576ull; // 676 to the power of four, in microseconds
static const uint64_t SECOND = 1000000000ull;

typedef enum { IDLE, CONNECTING, HEADERS, BODY } State;
typedef enum { SIZE_LINE, CHUNK, CHUNK_END, TRAILER } Coding;

typedef struct {
  int fd, is_probe;
  State state;
  uint64_t due, sent_at;
  char head[MAX_HEAD_BYTES];
  int head_size;
  int is_chunked, closes;
  long left; // bytes of a body with a length; -1: chunked, -2: until the connection closes
  Coding coding;
  long chunk_left;
  char size_line[32];
  int size_line_size;
  char *body; // what may be the beginning of a stamp
  size_t body_size, body_capacity;
  int chunks, stamps, is_first, is_done;
} Conn;

typedef struct {
  uint32_t *microseconds;
  size_t count, capacity;
} Times;

static int port = 8000, streams = 1, chunks_each = 1000000, burst = 1, sync_ticks, stamp_every = 10;
static int probes, probe_chunks = 10, think_ms = 20;
static double rate = 50, warm_seconds = 2, measure_seconds = 5;

static Conn *conns;
static int epoll;
static uint64_t window_begin, window_end;
static Times latencies, first_chunks;
static uint64_t stamps_seen, requests, errors;
static char first_error[300];

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * SECOND + t.tv_nsec;
}

static int is_counted(uint64_t t) { return t >= window_begin && t < window_end; }

static void add(Times *times, uint64_t microseconds) {
  if (times->count == times->capacity) {
    times->capacity = times->capacity ? times->capacity * 2 : 1 << 14;
    times->microseconds = realloc(times->microseconds, times->capacity * sizeof *times->microseconds);
  }
  times->microseconds[times->count++] = microseconds;
}

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static double percentile(const Times *times, double share) {
  return times->count ? times->microseconds[(size_t)(share * (times->count - 1) + 0.5)] : -1.0;
}

static void count_error(Conn *c, const char *why) {
  if (is_counted(now())) errors++;
  if (first_error[0]) return;
  snprintf(first_error, sizeof first_error, "%s: %.200s", why, c->head_size ? c->head : "");
  for (char *p = first_error; *p; p++) {
    if (*p == '"' || *p == '\\' || (unsigned char)*p < 32) *p = ' ';
  }
}

static void reset(Conn *c, uint64_t due) {
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  c->state = IDLE;
  c->due = due;
}

static void fail(Conn *c, const char *why) {
  count_error(c, why);
  reset(c, now() + SECOND / 5);
}

static void send_request(Conn *c) {
  char body[600], request[1000];
  int body_size = snprintf(body, sizeof body,
                           "{\"model\":\"fake\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":"
                           "\"Tell me something about streams, bench:n=%d,rate=%g,burst=%d,sync=%d,stamp=%d;\"}]}",
                           c->chunks, c->is_probe ? 0 : rate, burst, c->is_probe ? 0 : sync_ticks, stamp_every);
  int size = snprintf(request, sizeof request,
                      "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer sk-bench\r\n"
                      "Content-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: %d\r\n\r\n%s",
                      port, body_size, body);
  c->sent_at = now();
  c->state = HEADERS;
  c->head_size = c->body_size = c->stamps = c->is_done = c->size_line_size = 0;
  c->coding = SIZE_LINE;
  c->is_first = 1;
  if (is_counted(c->sent_at)) requests++;
  if (send(c->fd, request, size, MSG_NOSIGNAL) != size) fail(c, "send");
}

static void open_conn(Conn *c) {
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  c->state = CONNECTING;
  if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS) {
    fail(c, "connect");
    return;
  }
  struct epoll_event e = {EPOLLIN | EPOLLOUT, {.u32 = c - conns}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
}

static void start(Conn *c) {
  c->due = 0;
  if (c->fd < 0) {
    open_conn(c);
  } else {
    send_request(c);
  }
}

static void see_stamp(Conn *c, const char *pairs, uint64_t t) {
  uint64_t stamp = 0;
  for (int i = 0; i < STAMP_PAIRS; i++) stamp = stamp * 676 + (pairs[3 * i + 1] - 'a') * 26 + (pairs[3 * i + 2] - 'a');
  uint64_t age = (t / 1000 + STAMP_PERIOD - stamp) % STAMP_PERIOD; // microseconds
  c->stamps++;
  if (is_counted(t) && age * 1000 <= t - window_begin) { // sent within the window too
    if (!c->is_probe) {
      stamps_seen++;
      add(&latencies, age);
    }
    if (c->is_first && c->sent_at >= window_begin) add(&first_chunks, (t - c->sent_at) / 1000);
  }
  c->is_first = 0;
}

static void read_body(Conn *c, const char *data, size_t size, uint64_t t) {
  if (c->body_size + size > c->body_capacity) {
    c->body_capacity = (c->body_size + size) * 2;
    c->body = realloc(c->body, c->body_capacity);
  }
  memcpy(c->body + c->body_size, data, size);
  c->body_size += size;
  char *at = c->body, *end = c->body + c->body_size, *mark;
  while ((mark = memmem(at, end - at, "@T", 2)) && mark + STAMP_BYTES <= end) {
    see_stamp(c, mark + 2, t);
    at = mark + STAMP_BYTES;
  }
  if (memmem(at, end - at, "[DONE]", 6)) c->is_done = 1;
  size_t kept = end - at > KEPT_BYTES ? KEPT_BYTES : end - at;
  memmove(c->body, end - kept, kept);
  c->body_size = kept;
}

static void finish(Conn *c, uint64_t t) {
  int expected = (c->chunks + stamp_every - 1) / stamp_every;
  if (!c->is_done) {
    count_error(c, "no [DONE]");
  } else if (c->stamps < expected) {
    count_error(c, "fewer chunks than asked for");
  }
  uint64_t due = t + (c->is_probe ? think_ms * 1000000ull : 0);
  if (c->closes || c->left == -2) {
    reset(c, due);
  } else {
    c->state = IDLE;
    c->due = due;
  }
}

// Returns how many bytes of `data` belonged to the head.
static size_t read_head(Conn *c, const char *data, size_t size) {
  size_t taken = size, room = sizeof c->head - 1 - c->head_size;
  if (taken > room) taken = room;
  int before = c->head_size;
  memcpy(c->head + before, data, taken);
  c->head_size += taken;
  c->head[c->head_size] = 0;
  char *end = strstr(c->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
  if (!end) {
    if (taken < size) fail(c, "a head without end");
    return taken;
  }
  size_t used = end + 4 - c->head - before;
  *end = 0;
  if (strncmp(c->head + 8, " 200", 4)) {
    fail(c, "status");
    return size;
  }
  char *length = strcasestr(c->head, "content-length:");
  c->is_chunked = strcasestr(c->head, "transfer-encoding: chunked") != 0;
  c->closes = strcasestr(c->head, "connection: close") != 0;
  c->left = c->is_chunked ? -1 : length ? atol(length + 15) : -2;
  c->state = BODY;
  return used;
}

// A line of the chunked coding; returns the bytes taken, and sets `is_whole` when its end is here.
static size_t read_line(Conn *c, const char *data, size_t size, int *is_whole) {
  for (size_t i = 0; i < size; i++) {
    if (data[i] == '\n') {
      c->size_line[c->size_line_size] = 0;
      *is_whole = 1;
      return i + 1;
    }
    if (data[i] != '\r' && c->size_line_size < (int)sizeof c->size_line - 1)
      c->size_line[c->size_line_size++] = data[i];
  }
  *is_whole = 0;
  return size;
}

static size_t read_coding(Conn *c, const char *data, size_t size, uint64_t t) {
  if (c->coding == CHUNK) {
    size_t taken = size < (size_t)c->chunk_left ? size : (size_t)c->chunk_left;
    read_body(c, data, taken, t);
    if (!(c->chunk_left -= taken)) c->coding = CHUNK_END;
    return taken;
  }
  int is_whole;
  size_t taken = read_line(c, data, size, &is_whole);
  if (!is_whole) return taken;
  int is_empty = c->size_line_size == 0;
  c->size_line_size = 0;
  if (c->coding == SIZE_LINE) {
    c->chunk_left = strtol(c->size_line, 0, 16);
    c->coding = c->chunk_left ? CHUNK : TRAILER;
  } else if (c->coding == CHUNK_END) {
    c->coding = SIZE_LINE;
  } else if (is_empty) {
    finish(c, t);
  }
  return taken;
}

static void read_data(Conn *c, const char *data, size_t size, uint64_t t) {
  while (size && (c->state == HEADERS || c->state == BODY)) {
    size_t taken = size;
    if (c->state == HEADERS) {
      taken = read_head(c, data, size);
    } else if (c->is_chunked) {
      taken = read_coding(c, data, size, t);
    } else {
      read_body(c, data, size, t);
      if (c->left > 0 && (c->left -= size) <= 0) finish(c, t);
    }
    data += taken;
    size -= taken;
  }
}

static void connected(Conn *c, uint32_t events) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) {
    fail(c, strerror(error));
  } else if (events & EPOLLOUT) {
    struct epoll_event e = {EPOLLIN, {.u32 = c - conns}};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
    send_request(c);
  }
}

static void receive(Conn *c) {
  static char data[65536];
  ssize_t got = recv(c->fd, data, sizeof data, MSG_DONTWAIT);
  uint64_t t = now();
  if (got > 0) {
    read_data(c, data, got, t);
  } else if (got < 0 && errno == EAGAIN) {
    return;
  } else if (c->state == BODY && c->left == -2) {
    finish(c, t);
  } else if (c->state == IDLE) {
    reset(c, c->due);
  } else {
    fail(c, "closed");
  }
}

static void read_arguments(int count, char **arguments) {
  int option;
  while ((option = getopt(count, arguments, "p:c:r:n:b:s:S:w:m:q:Q:t:")) > 0) {
    switch (option) {
    case 'p': port = atoi(optarg); break;
    case 'c': streams = atoi(optarg); break;
    case 'r': rate = atof(optarg); break;
    case 'n': chunks_each = atoi(optarg); break;
    case 'b': burst = atoi(optarg); break;
    case 's': sync_ticks = atoi(optarg); break;
    case 'S': stamp_every = atoi(optarg); break;
    case 'w': warm_seconds = atof(optarg); break;
    case 'm': measure_seconds = atof(optarg); break;
    case 'q': probes = atoi(optarg); break;
    case 'Q': probe_chunks = atoi(optarg); break;
    case 't': think_ms = atoi(optarg); break;
    default: exit(2);
    }
  }
}

static void set_out(uint64_t begin) {
  for (int i = 0; i < streams + probes; i++) {
    Conn *c = conns + i;
    c->fd = -1;
    c->is_probe = i >= streams;
    c->chunks = c->is_probe ? probe_chunks : chunks_each;
    double share = c->is_probe ? (double)(i - streams) / probes : (double)i / streams;
    double spread = c->is_probe ? think_ms / 1000.0 : warm_seconds * 0.6;
    c->due = begin + (c->is_probe ? warm_seconds * 0.6 * SECOND : 0) + share * spread * SECOND + 1;
  }
}

static void say(const char *word) {
  puts(word);
  fflush(stdout);
}

static void print_result(double seconds, double own_cpu) {
  qsort(latencies.microseconds, latencies.count, sizeof(uint32_t), compare);
  qsort(first_chunks.microseconds, first_chunks.count, sizeof(uint32_t), compare);
  printf("{\"seconds\":%.4f,\"chunks\":%lu,\"requests\":%lu,\"errors\":%lu,\"first_error\":\"%s\",", seconds,
         stamps_seen * stamp_every, requests, errors, first_error);
  printf("\"chunk_p50\":%.0f,\"chunk_p99\":%.0f,\"first_count\":%zu,\"first_p50\":%.0f,\"first_p99\":%.0f,",
         percentile(&latencies, 0.5), percentile(&latencies, 0.99), first_chunks.count, percentile(&first_chunks, 0.5),
         percentile(&first_chunks, 0.99));
  printf("\"chunk_times\":[");
  for (int i = 0; i <= 100 && latencies.count; i++) printf("%s%.0f", i ? "," : "", percentile(&latencies, i / 100.0));
  printf("],\"client_cpu\":%.4f}\n", own_cpu / seconds);
}

static double own_cpu(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void start_due(uint64_t t) {
  static uint64_t next;
  if (t < next) return;
  next = t + 1000000;
  for (int i = 0; i < streams + probes; i++) {
    if (conns[i].state == IDLE && conns[i].due && conns[i].due <= t) start(conns + i);
  }
}

static void poll_once(void) {
  struct epoll_event events[256];
  struct timespec millisecond = {0, 1000000};
  int ready = epoll_pwait2(epoll, events, 256, &millisecond, 0);
  for (int i = 0; i < ready; i++) {
    Conn *c = conns + events[i].data.u32;
    if (c->fd >= 0 && c->state == CONNECTING) {
      connected(c, events[i].events);
    } else if (c->fd >= 0) {
      receive(c);
    }
  }
}

int main(int count, char **arguments) {
  read_arguments(count, arguments);
  signal(SIGPIPE, SIG_IGN);
  epoll = epoll_create1(0);
  conns = calloc(streams + probes, sizeof *conns);
  uint64_t begin = now(), t = begin;
  window_begin = begin + warm_seconds * SECOND;
  window_end = window_begin + measure_seconds * SECOND;
  set_out(begin);
  for (; t < window_begin; t = now()) {
    start_due(t);
    poll_once();
  }
  say("begin");
  double cpu = own_cpu();
  for (; t < window_end; t = now()) {
    start_due(t);
    poll_once();
  }
  say("end");
  print_result(measure_seconds, own_cpu() - cpu);
}
