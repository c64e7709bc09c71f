// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * invariants REPORT [OPERATIONS [EVERY]]: a program that would notice.
 *
 * Its state is a bank, a list, a tree and a journal, all in the arena, with redundancy in all
 * of them. At each start it examines every byte of what was restored; then it works, commits
 * often, and as soon as a commit is durable appends a line to the file REPORT. Whoever kills it can compare
 * what it reported with what is restored next. What it does in which operation follows from the
 * operation's number alone, so two runs of as many operations end in the same state, however
 * often they were interrupted or committed. With OPERATIONS it stops there and prints a digest of
 * the state. It commits at one operation in EVERY, 8 if not told otherwise, and at the end.
 *
 * Lines of REPORT:
 *     R RESTORED EPOCH OPERATIONS   started: epoch restored (0: none), last durable epoch
 *     C EPOCH OPERATIONS            a commit is durable; the program works at later ones by then
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckpt.h"

#define MAGIC 0x73746e6169726176ull
#define ACCOUNTS 4096
#define BALANCE 1000
#define EVENTS_MAX 500
#define KEYS 2048
#define JOURNAL_STEP (16u << 10)
#define JOURNAL_RESERVE (256ull << 20)

/* An event: a list of the newest EVENTS_MAX, oldest first. */
struct event {
	struct event *prev, *next;
	uint64_t operation;
	uint32_t len, sum;
	unsigned char data[];
};

/* A node of a treap: a search tree by key, a heap by what mix() makes of the key. */
struct node {
	struct node *left, *right;
	uint64_t key;
	uint32_t len, sum;
	unsigned char data[];
};

struct root {
	uint64_t magic;
	uint64_t operations;
	uint64_t (*mix)(uint64_t); /* a pointer to code */
	const char *greeting;      /* a pointer to read-only data */
	int64_t *accounts;         /* the region "accounts" */
	uint64_t *journal;         /* the region "journal": a hash for each operation */
	struct event *oldest, *newest;
	uint64_t events;
	struct node *tree;
	uint64_t nodes;
};

static ckpt_t *ctx;
static const char greeting[] = "still here";

static void fail(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fprintf(stderr, "invariants: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
	va_end(arguments);
	_exit(1);
}

/* A permutation of the 64-bit numbers that looks random (splitmix64). */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t draw(uint64_t *random, uint64_t below)
{
	*random = mix(*random);
	return *random % below;
}

static uint32_t sum(const unsigned char *data, uint32_t len, uint64_t salt)
{
	uint64_t hash = salt;
	for (uint32_t i = 0; i < len; i++)
		hash = (hash ^ data[i]) * 0x100000001b3ull;
	return mix(hash);
}

static void fill(unsigned char *data, uint32_t len, uint64_t random)
{
	for (uint32_t i = 0; i < len; i++) {
		if (i % 8 == 0)
			random = mix(random);
		data[i] = random >> i % 8 * 8;
	}
}

static void *must(void *block)
{
	if (!block)
		fail("%s", ckpt_errmsg(ctx));
	return block;
}

/* The list. */

static void list_append(struct root *root, uint64_t *random)
{
	uint32_t len = draw(random, 600);
	struct event *event = must(ckpt_malloc(ctx, sizeof *event + len));
	event->operation = root->operations;
	event->len = len;
	fill(event->data, len, *random);
	event->sum = sum(event->data, len, event->operation);
	event->next = NULL;
	event->prev = root->newest;
	*(root->newest ? &root->newest->next : &root->oldest) = event;
	root->newest = event;
	if (++root->events > EVENTS_MAX) {
		struct event *gone = root->oldest;
		root->oldest = gone->next;
		root->oldest->prev = NULL;
		root->events--;
		ckpt_free(ctx, gone);
	}
}

/* The tree. */

static struct node *tree_join(struct node *left, struct node *right)
{
	if (!left || !right)
		return left ? left : right;
	if (mix(left->key) > mix(right->key)) {
		left->right = tree_join(left->right, right);
		return left;
	}
	right->left = tree_join(left, right->left);
	return right;
}

static void tree_split(struct node *tree, uint64_t key, struct node **left, struct node **right)
{
	if (!tree) {
		*left = *right = NULL;
	} else if (tree->key < key) {
		tree_split(tree->right, key, &tree->right, right);
		*left = tree;
	} else {
		tree_split(tree->left, key, left, &tree->left);
		*right = tree;
	}
}

static void tree_insert(struct root *root, struct node *node)
{
	struct node *left, *right;
	tree_split(root->tree, node->key, &left, &right);
	node->left = node->right = NULL;
	root->tree = tree_join(tree_join(left, node), right);
	root->nodes++;
}

static struct node *tree_remove(struct root *root, uint64_t key)
{
	struct node *left, *middle, *right;
	tree_split(root->tree, key, &left, &right);
	tree_split(right, key + 1, &middle, &right);
	root->tree = tree_join(left, right);
	root->nodes -= middle != NULL;
	return middle;
}

/* Removes the key if it is there, else inserts it; or gives it other data of another length. */
static void tree_change(struct root *root, uint64_t *random)
{
	uint64_t key = draw(random, KEYS);
	uint32_t len = draw(random, 20) ? draw(random, 300) : draw(random, 20000);
	struct node *node = tree_remove(root, key);
	if (node && draw(random, 2)) {
		ckpt_free(ctx, node);
		return;
	}
	node = must(ckpt_realloc(ctx, node, sizeof *node + len));
	node->key = key;
	node->len = len;
	fill(node->data, len, *random);
	node->sum = sum(node->data, len, key);
	tree_insert(root, node);
}

/* One operation. */

static void journal_append(struct root *root)
{
	size_t need = (root->operations + 1) * sizeof *root->journal;
	if (need > ckpt_region_len(ctx, "journal") &&
	    ckpt_region_grow(ctx, "journal", need + JOURNAL_STEP) < 0)
		fail("%s", ckpt_errmsg(ctx));
	uint64_t before = root->operations ? root->journal[root->operations - 1] : MAGIC;
	root->journal[root->operations] = mix(before ^ root->operations);
}

static void operate(struct root *root)
{
	uint64_t random = root->mix(root->operations);
	int64_t amount = draw(&random, 50);
	uint64_t from = draw(&random, ACCOUNTS), to = draw(&random, ACCOUNTS);
	root->accounts[from] -= amount;
	root->accounts[to] += amount;
	if (draw(&random, 3) == 0)
		list_append(root, &random);
	if (draw(&random, 3) == 0)
		tree_change(root, &random);
	journal_append(root);
	root->operations++;
}

/* Examines everything; returns a digest of what does not depend on addresses. */

static uint64_t check_tree(const struct node *node, uint64_t from, uint64_t to, uint64_t *nodes,
			   uint64_t digest)
{
	if (!node)
		return digest;
	if (node->key < from || node->key >= to)
		fail("tree: key %" PRIu64 " stands where keys are %" PRIu64 " to %" PRIu64,
		     node->key, from, to);
	if ((node->left && mix(node->left->key) > mix(node->key)) ||
	    (node->right && mix(node->right->key) > mix(node->key)))
		fail("tree: key %" PRIu64 " is no heap", node->key);
	if (node->sum != sum(node->data, node->len, node->key))
		fail("tree: the data of key %" PRIu64 " is damaged", node->key);
	++*nodes;
	digest = check_tree(node->left, from, node->key, nodes, digest);
	digest = mix(digest ^ node->key ^ (uint64_t)node->sum << 32);
	return check_tree(node->right, node->key + 1, to, nodes, digest);
}

static uint64_t check(const struct root *root)
{
	uint64_t digest = root->operations;
	if (root->magic != MAGIC)
		fail("the root has no magic number");
	if (root->mix != mix || root->greeting != greeting || strcmp(root->greeting, "still here") != 0)
		fail("pointers out of the arena are wrong");

	int64_t total = 0;
	for (int i = 0; i < ACCOUNTS; i++) {
		total += root->accounts[i];
		digest = mix(digest ^ (uint64_t)root->accounts[i]);
	}
	if (total != (int64_t)ACCOUNTS * BALANCE)
		fail("accounts: %" PRId64 " in all, not %d", total, ACCOUNTS * BALANCE);

	uint64_t events = 0;
	const struct event *prev = NULL;
	for (const struct event *event = root->oldest; event; event = event->next) {
		if (event->prev != prev || event->operation >= root->operations ||
		    (prev && event->operation <= prev->operation))
			fail("list: event %" PRIu64 " is out of order", events);
		if (event->sum != sum(event->data, event->len, event->operation))
			fail("list: the data of event %" PRIu64 " is damaged", events);
		digest = mix(digest ^ event->operation ^ (uint64_t)event->sum << 32);
		prev = event;
		events++;
	}
	if (prev != root->newest || events != root->events)
		fail("list: %" PRIu64 " events, not %" PRIu64, events, root->events);

	uint64_t nodes = 0;
	digest = check_tree(root->tree, 0, KEYS, &nodes, digest);
	if (nodes != root->nodes)
		fail("tree: %" PRIu64 " nodes, not %" PRIu64, nodes, root->nodes);

	if (root->operations * sizeof *root->journal > ckpt_region_len(ctx, "journal"))
		fail("journal: is shorter than its content");
	uint64_t hash = MAGIC;
	for (uint64_t i = 0; i < root->operations; i++) {
		hash = mix(hash ^ i);
		if (root->journal[i] != hash)
			fail("journal: entry %" PRIu64 " is wrong", i);
	}
	return mix(digest ^ hash);
}

/* Starting. */

static void *region(const char *name, size_t len, size_t reserve)
{
	void *addr;
	if (ckpt_region(ctx, name, 1, len, reserve, &addr) < 0)
		fail("%s", ckpt_errmsg(ctx));
	return addr;
}

static struct root *begin(int64_t *accounts, uint64_t *journal)
{
	struct root *root = must(ckpt_calloc(ctx, 1, sizeof *root));
	root->magic = MAGIC;
	root->mix = mix;
	root->greeting = greeting;
	root->accounts = accounts;
	root->journal = journal;
	for (int i = 0; i < ACCOUNTS; i++)
		accounts[i] = BALANCE;
	if (ckpt_set_root(ctx, root) < 0)
		fail("%s", ckpt_errmsg(ctx));
	return root;
}

/* Appends a line to the report. It survives a kill: it is the kernel's once write() returns. */
static void report(int fd, const char *format, ...)
{
	char line[128];
	va_list arguments;
	va_start(arguments, format);
	int len = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	if (write(fd, line, len) != len)
		fail("cannot write the report: %s", strerror(errno));
}

/*
 * The commits that are on their way, and how many operations each has. They are noted before the
 * commit in the thread that makes it, and reported in the library's, behind it.
 */
static struct {
	pthread_mutex_t lock;
	uint64_t commits;
	struct {
		uint64_t epoch, operations;
	} noted[2 * CKPT_IN_FLIGHT_MAX];
} way = { .lock = PTHREAD_MUTEX_INITIALIZER };
#define NOTED_MAX (sizeof way.noted / sizeof *way.noted)

static int note_commit(ckpt_t *context, uint64_t epoch, void *user)
{
	const struct root *root = user;
	(void)context;
	pthread_mutex_lock(&way.lock);
	way.noted[way.commits % NOTED_MAX].epoch = epoch;
	way.noted[way.commits++ % NOTED_MAX].operations = root->operations;
	pthread_mutex_unlock(&way.lock);
	return 0;
}

static int report_commit(ckpt_t *context, uint64_t epoch, void *user)
{
	uint64_t operations = 0, noted = 0;
	(void)context;
	pthread_mutex_lock(&way.lock);
	for (size_t i = 0; i < NOTED_MAX; i++)
		if (way.noted[i].epoch <= epoch && way.noted[i].epoch > noted) {
			noted = way.noted[i].epoch;
			operations = way.noted[i].operations;
		}
	pthread_mutex_unlock(&way.lock);
	report(*(int *)user, "C %" PRIu64 " %" PRIu64 "\n", epoch, operations);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: invariants REPORT [OPERATIONS [EVERY]]\n");
		return 2;
	}
	int fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0)
		fail("%s: %s", argv[1], strerror(errno));
	uint64_t stop = argc > 2 ? strtoull(argv[2], NULL, 10) : UINT64_MAX;
	uint64_t every = argc > 3 ? strtoull(argv[3], NULL, 10) : 8;
	if (every == 0)
		fail("EVERY is a number above zero");

	if (ckpt_open(NULL, &ctx) < 0)
		fail("%s", ckpt_errmsg(NULL));
	int64_t *accounts = region("accounts", ACCOUNTS * sizeof *accounts, 0);
	uint64_t *journal = region("journal", JOURNAL_STEP, JOURNAL_RESERVE);
	struct root *root = ckpt_root(ctx);
	if (!root) {
		if (ckpt_restored_epoch(ctx) > 0)
			fail("epoch %" PRIu64 " was restored without a root", ckpt_restored_epoch(ctx));
		root = begin(accounts, journal);
	}
	if (root->accounts != accounts || root->journal != journal)
		fail("a region is elsewhere than before");
	check(root);
	report(fd, "R %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", ckpt_restored_epoch(ctx), ckpt_epoch(ctx),
	       root->operations);

	if (ckpt_hook(ctx, CKPT_BEFORE_COMMIT, note_commit, root) < 0 ||
	    ckpt_hook(ctx, CKPT_AFTER_COMMIT, report_commit, &fd) < 0)
		fail("%s", ckpt_errmsg(ctx));
	while (root->operations < stop) {
		operate(root);
		if (mix(~root->operations) % every != 0 && root->operations != stop)
			continue;
		if (ckpt_commit(ctx, NULL) < 0)
			fail("%s", ckpt_errmsg(ctx));
	}
	if (ckpt_wait(ctx, 0, -1) < 0)
		fail("%s", ckpt_errmsg(ctx));
	printf("%" PRIu64 " operations, digest %016" PRIx64 "\n", root->operations, check(root));
	return ckpt_close(ctx) < 0;
}
