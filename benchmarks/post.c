/* The limit: what a post costs in C, on epoll and OpenSSL, with the bytes that the library sends.

   `post HOST PORT PATH [certificate.pem]` takes credentials, AWS_REGION and MESSAGE from the environment and speaks as
   `python -m benchmarks.clients` does: it reads a number of posts from each line of its standard input, posts as many,
   and prints the seconds and the CPU seconds that took. It retries nothing: what is not a plain 200 ends it. */

#define OPENSSL_API_COMPAT 0x10101000L /* hashes that are copied with `=`, which OpenSSL's newer calls cannot do */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { IN_FLIGHT = 128, ROOM = 16384 };

typedef struct {
    int fd;
    SSL *tls; /* NULL over plain HTTP */
} Connection;

static const char *host, *path, *region, *key_id, *secret, *token, *message;
static int port;

/* What requests of one second share, as in sigv4.py. */
static struct {
    time_t second;
    char headers[ROOM], canonical[ROOM], tail[ROOM];
    size_t headers_length, canonical_length, tail_length;
    SHA256_CTX inner, outer; /* HMAC's two halves, the first with the string to sign but for its last line */
} shared;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static const char *setting(const char *name) {
    const char *value = getenv(name);
    if (value == NULL) {
        errno = EINVAL, fail(name);
    }
    return value;
}

static size_t write_text(char *to, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int length = vsnprintf(to, ROOM, format, values);
    va_end(values);
    if (length < 0 || length >= ROOM) {
        errno = EMSGSIZE, fail("a request");
    }
    return (size_t)length;
}

static void hexadecimal(const unsigned char *digest, char *to) {
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        to[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        to[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
}

static void hash(const char *data, size_t length, char *to) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256_CTX context;
    SHA256_Init(&context); /* a third quicker than SHA256(), which looks its algorithm up each time */
    SHA256_Update(&context, data, length);
    SHA256_Final(digest, &context);
    hexadecimal(digest, to);
}

static void turn_to(time_t second) {
    const char *signed_headers = "host;x-amz-date;x-amz-security-token";
    char stamp[17], day[9], scope[128], text[ROOM], hashed[65] = "";
    unsigned char key[SHA256_DIGEST_LENGTH], block[SHA256_CBLOCK];
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", gmtime(&second));
    snprintf(day, sizeof day, "%.8s", stamp);
    snprintf(scope, sizeof scope, "%s/%s/execute-api/aws4_request", day, region);
    int length = (int)write_text(text, "AWS4%s", secret);
    const char *parts[] = {day, region, "execute-api", "aws4_request"};
    for (int i = 0; i < 4; i++) {
        HMAC(EVP_sha256(), i ? (void *)key : (void *)text, i ? (int)sizeof key : length,
             (const unsigned char *)parts[i], strlen(parts[i]), key, NULL);
    }
    for (int half = 0; half < 2; half++) {
        for (size_t i = 0; i < sizeof block; i++) {
            block[i] = (i < sizeof key ? key[i] : 0) ^ (half ? 0x5c : 0x36);
        }
        SHA256_CTX *context = half ? &shared.outer : &shared.inner;
        SHA256_Init(context);
        SHA256_Update(context, block, sizeof block);
    }
    SHA256_Update(&shared.inner, text, write_text(text, "AWS4-HMAC-SHA256\n%s\n%s\n", stamp, scope));
    shared.headers_length = write_text(
        shared.headers,
        " HTTP/1.1\r\nHost: %s:%d\r\nX-Amz-Date: %s\r\nX-Amz-Security-Token: %s\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=",
        host, port, stamp, token, key_id, scope, signed_headers);
    hash(message, strlen(message), hashed);
    shared.canonical_length = write_text(
        shared.canonical, "\n\nhost:%s:%d\nx-amz-date:%s\nx-amz-security-token:%s\n\n%s\n%s", host, port, stamp, token,
        signed_headers, hashed);
    shared.tail_length = write_text(shared.tail, "\r\nContent-Length: %zu\r\n\r\n%s", strlen(message), message);
    shared.second = second;
}

static size_t append(char *to, size_t at, const char *data, size_t length) {
    if (at + length > ROOM) {
        errno = EMSGSIZE, fail("a request");
    }
    memcpy(to + at, data, length);
    return at + length;
}

/* The whole request to the connection of this number, as benchmarks/clients.py numbers them. */
static size_t write_request(char *to, long number) {
    char canonical[ROOM], line[64];
    time_t second = time(NULL);
    if (second != shared.second) {
        turn_to(second);
    }
    size_t length = write_text(canonical, "POST\n%s/%%2540connections/L0SM9cOF%07ldw%%253D", path, number);
    length = append(canonical, length, shared.canonical, shared.canonical_length);
    hash(canonical, length, line);
    SHA256_CTX half = shared.inner;
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256_Update(&half, line, sizeof line);
    SHA256_Final(digest, &half);
    half = shared.outer;
    SHA256_Update(&half, digest, sizeof digest);
    SHA256_Final(digest, &half);
    hexadecimal(digest, line);
    length = write_text(to, "POST %s/%%40connections/L0SM9cOF%07ldw%%3D", path, number);
    length = append(to, length, shared.headers, shared.headers_length);
    length = append(to, length, line, sizeof line);
    return append(to, length, shared.tail, shared.tail_length);
}

static void send_request(Connection *connection, long number) {
    char request[ROOM];
    size_t length = write_request(request, number);
    long sent = connection->tls ? SSL_write(connection->tls, request, (int)length)
                                : send(connection->fd, request, length, 0);
    if (sent != (long)length) {
        fail("send");
    }
}

/* Whether the answer has come; it is one record or segment, as the benchmarks' server writes it. */
static int receive_answer(Connection *connection) {
    char answer[ROOM];
    long length = connection->tls ? SSL_read(connection->tls, answer, ROOM) : recv(connection->fd, answer, ROOM, 0);
    if (connection->tls && length < 0 && SSL_get_error(connection->tls, (int)length) == SSL_ERROR_WANT_READ) {
        return 0; /* a session ticket, which is no answer */
    }
    if (length < 17 || memcmp(answer, "HTTP/1.1 200 ", 13) || memcmp(answer + length - 4, "\r\n\r\n", 4)) {
        fail("not delivered");
    }
    return 1;
}

static void connect_to(Connection *connection, SSL_CTX *context) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int on = 1;
    inet_pton(AF_INET, host, &address.sin_addr);
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address)) {
        fail("connect");
    }
    if (context != NULL) {
        connection->tls = SSL_new(context);
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(connection->tls), host);
        SSL_set_fd(connection->tls, connection->fd);
        if (SSL_connect(connection->tls) != 1) {
            fail("SSL_connect");
        }
    }
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
}

static void post(Connection *connections, int epoll, long count) {
    struct epoll_event ready[IN_FLIGHT];
    long next = 0, delivered = 0;
    while (next < count && next < IN_FLIGHT) {
        send_request(&connections[next], next);
        next++;
    }
    while (delivered < count) {
        int number = epoll_wait(epoll, ready, IN_FLIGHT, -1);
        for (int i = 0; i < number; i++) {
            if (receive_answer(ready[i].data.ptr)) {
                delivered++;
                if (next < count) {
                    send_request(ready[i].data.ptr, next++);
                }
            }
        }
    }
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int count, char **arguments) {
    static Connection connections[IN_FLIGHT];
    char line[32];
    SSL_CTX *context = NULL;
    if (count < 4) {
        return fputs("usage: post HOST PORT PATH [certificate.pem]\n", stderr), 2;
    }
    host = arguments[1], port = atoi(arguments[2]), path = arguments[3];
    region = setting("AWS_REGION"), key_id = setting("AWS_ACCESS_KEY_ID"), secret = setting("AWS_SECRET_ACCESS_KEY");
    token = setting("AWS_SESSION_TOKEN"), message = setting("MESSAGE");
    if (count > 4) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_read_ahead(context, 1); /* one system call for a record, not two */
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        if (SSL_CTX_load_verify_locations(context, arguments[4], NULL) != 1) {
            fail("certificate");
        }
    }
    int epoll = epoll_create1(0);
    for (int i = 0; i < IN_FLIGHT; i++) {
        connect_to(&connections[i], context);
        struct epoll_event readable = {.events = EPOLLIN, .data.ptr = &connections[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].fd, &readable);
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        double started = seconds(CLOCK_MONOTONIC), cpu_started = seconds(CLOCK_PROCESS_CPUTIME_ID);
        post(connections, epoll, atol(line));
        printf("%.9f %.9f\n", seconds(CLOCK_MONOTONIC) - started, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_started);
        fflush(stdout);
    }
    return 0;
}
