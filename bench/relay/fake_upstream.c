// A fast fake upstream: streams chat.completion.chunk events, paced by timers. One thread, epoll.
//
//   gcc -O2 -o fake_upstream fake_upstream.c && ./fake_upstream PORT      (0: a free one; the port is printed)
//
// Every POST is answered with a stream. Its body is searched for a control word, which the load client
// puts into the user's message, so that any proxy that passes messages on passes it too:
//
//   bench:n=200,rate=50,burst=1,sync=0,stamp=10;
//
//   n       chunks with text in the stream
//   rate    chunks a second; 0: as fast as the socket takes them
//   burst   events sent at once, each in a chunk of the transfer coding of its own
//   sync    1: all streams of one rate tick together, as one step of an LLM server that batches
//   stamp   every how many chunks the text is a stamp, the first always; the others are a word
//
// A stamp is " @T" and the CLOCK_MONOTONIC microseconds of its sending as four pairs of letters, " @T ab cd ef gh.":
// it survives re-serialising, its few short words are known to any tokenizer's cache as real ones are, and after
// the full stop no later text can change how they are tokenized.
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 70000, MAX_EVENT_BYTES = 700, MAX_BURST = 60, STAMP_PAIRS = 4 };

typedef struct {
  int fd;
  int heap_place; // -1: not in the heap
  char *in;
  size_t in_size, in_capacity;
  char *out; // what the socket did not take
  size_t out_size, out_capacity;
  int is_streaming, is_unpaced;
  int n, sent, burst, stamp_every;
  uint64_t next, step;
} Conn;

static Conn *conns[MAX_FDS];
static Conn *heap[MAX_FDS]; // streams by the time of their next chunk
static int heap_size;
static int epoll;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void heap_swap(int a, int b) {
  Conn *first = heap[a];
  heap[a] = heap[b];
  heap[b] = first;
  heap[a]->heap_place = a;
  heap[b]->heap_place = b;
}

static void heap_up(int i) {
  for (; i && heap[i]->next < heap[(i - 1) / 2]->next; i = (i - 1) / 2) heap_swap(i, (i - 1) / 2);
}

static void heap_down(int i) {
  for (;;) {
    int child = 2 * i + 1, least = i;
    if (child < heap_size && heap[child]->next < heap[least]->next) least = child;
    child++;
    if (child < heap_size && heap[child]->next < heap[least]->next) least = child;
    if (least == i) return;
    heap_swap(i, least);
    i = least;
  }
}

static void heap_add(Conn *c) {
  c->heap_place = heap_size;
  heap[heap_size++] = c;
  heap_up(c->heap_place);
}

static void heap_remove(Conn *c) {
  int i = c->heap_place;
  if (i < 0) return;
  heap_size--;
  if (i != heap_size) {
    heap[i] = heap[heap_size];
    heap[i]->heap_place = i;
    heap_up(i);
    heap_down(heap[i]->heap_place);
  }
  c->heap_place = -1;
}

static void close_conn(Conn *c) {
  heap_remove(c);
  close(c->fd);
  conns[c->fd] = 0;
  free(c->in);
  free(c->out);
  free(c);
}

static void watch(Conn *c, uint32_t events, int operation) {
  struct epoll_event e = {events, {.fd = c->fd}};
  epoll_ctl(epoll, operation, c->fd, &e);
}

// 0: taken or kept for later, -1: the peer is gone.
static int write_all(Conn *c, const char *data, size_t size) {
  if (!c->out_size) {
    ssize_t taken = send(c->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (taken < 0 && errno != EAGAIN) return -1;
    if (taken < 0) taken = 0;
    if ((size_t)taken == size) return 0;
    data += taken;
    size -= taken;
    watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
  }
  if (c->out_size + size > c->out_capacity) {
    c->out_capacity = (c->out_size + size) * 2;
    c->out = realloc(c->out, c->out_capacity);
  }
  memcpy(c->out + c->out_size, data, size);
  c->out_size += size;
  return 0;
}

static const char HEAD[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    "x-request-id: req_0123456789\r\ntransfer-encoding: chunked\r\n\r\n";
static const char BEFORE[] =
    "data: "
    "{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1741570283,"
    "\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\","
    "\"choices\":[{\"index\":0,\"delta\":{";
static const char AFTER[] = "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char LAST[] = "},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
static const char *const WORDS[] = {" the", " river", " runs", " down", " to", " a",   " quiet",   " sea",
                                    " and", " boats", " come", " home", " in", " the", " evening", " light"};

static char *put(char *at, const char *text) { return stpcpy(at, text); }

static char *put_stamp(char *at) {
  uint64_t microseconds = now() / 1000;
  at = put(at, " @T");
  for (int i = STAMP_PAIRS - 1; i >= 0; i--, microseconds /= 676) {
    at[3 * i] = ' ';
    at[3 * i + 1] = 'a' + microseconds % 676 / 26;
    at[3 * i + 2] = 'a' + microseconds % 26;
  }
  return put(at + 3 * STAMP_PAIRS, ".");
}

// One event in a chunk of the transfer coding; returns its size.
static size_t put_event(char *into, const Conn *c) {
  char event[MAX_EVENT_BYTES], *at = put(event, BEFORE);
  if (c->sent == c->n) {
    at = put(at, LAST);
  } else {
    at = put(at, c->sent ? "\"content\":\"" : "\"role\":\"assistant\",\"content\":\"");
    at = c->sent % c->stamp_every ? put(at, WORDS[c->sent % 16]) : put_stamp(at);
    at = put(at, AFTER);
  }
  return sprintf(into, "%zx\r\n%.*s\r\n", (size_t)(at - event), (int)(at - event), event);
}

// Send one burst. 0: more to come, 1: the stream has ended, -1: the peer is gone.
static int send_burst(Conn *c) {
  char data[(MAX_BURST + 1) * (MAX_EVENT_BYTES + 10)];
  size_t size = 0;
  for (int i = 0; i < c->burst && c->sent < c->n; i++, c->sent++) size += put_event(data + size, c);
  int has_ended = c->sent >= c->n;
  if (has_ended) {
    size += put_event(data + size, c);
    size += sprintf(data + size, "0\r\n\r\n");
    c->is_streaming = 0;
  }
  return write_all(c, data, size) ? -1 : has_ended;
}

static double control(const char *word, const char *key, double otherwise) {
  const char *end = word ? strchr(word, ';') : 0, *found = word ? strstr(word, key) : 0;
  return found && end && found < end ? atof(found + strlen(key)) : otherwise;
}

static int start_stream(Conn *c, const char *body) {
  const char *word = strstr(body, "bench:");
  double rate = control(word, "rate=", 50);
  c->n = control(word, "n=", 200);
  c->burst = control(word, "burst=", 1);
  c->stamp_every = control(word, "stamp=", 1);
  if (c->burst < 1) c->burst = 1;
  if (c->burst > MAX_BURST) c->burst = MAX_BURST;
  if (c->stamp_every < 1) c->stamp_every = 1;
  c->is_streaming = 1;
  c->sent = 0;
  c->is_unpaced = rate <= 0;
  c->step = rate > 0 ? (uint64_t)(1e9 / rate * c->burst) : 0;
  c->next = now();
  if (control(word, "sync=", 0) && c->step) c->next = (c->next / c->step + 1) * c->step;
  if (write_all(c, HEAD, sizeof HEAD - 1)) return -1;
  heap_add(c);
  return 0;
}

static int answer_list(Conn *c) {
  static const char LIST[] = "{\"object\":\"list\",\"data\":[{\"id\":\"fake\",\"object\":\"model\"}]}";
  char data[300];
  int size = sprintf(data, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                     sizeof LIST - 1, LIST);
  return write_all(c, data, size);
}

// The size of the whole request that begins the input, 0 while it is not all here; its body ends with a NUL.
static size_t request_size(Conn *c, char **body) {
  c->in[c->in_size] = 0;
  char *end = strstr(c->in, "\r\n\r\n");
  if (!end) return 0;
  *body = end + 4;
  *end = 0;
  char *length = strcasestr(c->in, "content-length:");
  int is_chunked = strcasestr(c->in, "transfer-encoding: chunked") != 0;
  *end = '\r';
  size_t size = *body - c->in + (length ? strtoul(length + 15, 0, 10) : 0);
  if (is_chunked) {
    char *last = strstr(end + 2, "\r\n0\r\n\r\n");
    if (!last) return 0;
    size = last + 7 - c->in;
  }
  return size <= c->in_size ? size : 0;
}

// Answer the requests that are here; one at a time. -1: the peer is gone.
static int handle_input(Conn *c) {
  char *body;
  size_t size;
  while (!c->is_streaming && (size = request_size(c, &body))) {
    char kept = c->in[size];
    c->in[size] = 0;
    if (strncmp(c->in, "POST ", 5) ? answer_list(c) : start_stream(c, body)) return -1;
    c->in[size] = kept;
    memmove(c->in, c->in + size, c->in_size - size);
    c->in_size -= size;
  }
  return 0;
}

static void accept_all(int listener) {
  int fd, one = 1;
  while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
    if (fd >= MAX_FDS) {
      close(fd);
      continue;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    Conn *c = conns[fd] = calloc(1, sizeof *c);
    c->fd = fd;
    c->heap_place = -1;
    c->in = malloc(c->in_capacity = 8192);
    watch(c, EPOLLIN, EPOLL_CTL_ADD);
  }
}

static int flush(Conn *c) {
  ssize_t taken = send(c->fd, c->out, c->out_size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (taken < 0) return errno == EAGAIN ? 0 : -1;
  memmove(c->out, c->out + taken, c->out_size - taken);
  c->out_size -= taken;
  if (c->out_size) return 0;
  watch(c, EPOLLIN, EPOLL_CTL_MOD);
  if (c->is_streaming && c->heap_place < 0) {
    if (c->next < now()) c->next = now();
    heap_add(c);
  }
  return 0;
}

static int read_input(Conn *c) {
  if (c->in_capacity - c->in_size < 4096) c->in = realloc(c->in, c->in_capacity *= 2);
  ssize_t got = recv(c->fd, c->in + c->in_size, c->in_capacity - c->in_size - 1, 0);
  if (got < 0) return errno == EAGAIN ? 0 : -1;
  if (got == 0) return -1;
  c->in_size += got;
  return handle_input(c);
}

static void send_due(void) {
  uint64_t t = now();
  for (int budget = 512; heap_size && heap[0]->next <= t && budget; budget--) {
    Conn *c = heap[0];
    int sent = send_burst(c);
    if (sent < 0) {
      close_conn(c);
    } else if (sent || c->out_size) { // the end, or wait for the socket
      c->next += c->step;
      heap_remove(c);
      if (sent && handle_input(c)) close_conn(c);
    } else {
      c->next = c->is_unpaced ? t : c->next + c->step;
      heap_remove(c);
      heap_add(c);
    }
  }
}

static int listen_on(int port) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (bind(listener, (void *)&address, size) || listen(listener, 4096)) {
    perror("listen");
    exit(1);
  }
  getsockname(listener, (void *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return listener;
}

int main(int count, char **arguments) {
  signal(SIGPIPE, SIG_IGN);
  int listener = listen_on(count > 1 ? atoi(arguments[1]) : 0);
  epoll = epoll_create1(0);
  struct epoll_event e = {EPOLLIN, {.fd = listener}}, events[512];
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    struct timespec wait, *timeout = 0;
    if (heap_size) {
      uint64_t t = now(), left = heap[0]->next > t ? heap[0]->next - t : 0;
      wait = (struct timespec){left / 1000000000, left % 1000000000};
      timeout = &wait;
    }
    int ready = epoll_pwait2(epoll, events, 512, timeout, 0);
    for (int i = 0; i < ready; i++) {
      if (events[i].data.fd == listener) {
        accept_all(listener);
        continue;
      }
      Conn *c = conns[events[i].data.fd];
      if (!c) continue;
      int is_gone = events[i].events & EPOLLOUT ? flush(c) : 0;
      if (!is_gone && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) is_gone = read_input(c);
      if (is_gone) close_conn(c);
    }
    send_due();
  }
}
