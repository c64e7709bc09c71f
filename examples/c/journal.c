// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * journal: keeps the lines it is given, for ever. Prints the number of each line, but only once
 * the line is durable: whoever has seen a number can rely on the line.
 *
 *     journal <lines      adds lines
 *     journal --print     prints all
 *
 * Shows a region that grows, a program whose state has no pointers to code, so that any build
 * of it can go on from any chain of it, and output that is held back until it is safe.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt.h"

#define JOURNAL "journal"
#define JOURNAL_TYPE 0x4a524e4c
#define STEP (64u << 10)
#define RESERVE (1ull << 30)

/* The region: this, and the lines behind it. */
struct journal {
	size_t used;         /* bytes of lines */
	unsigned long lines; /* their number */
	char text[];
};

static void die(ckpt_t *ctx, const char *what)
{
	fprintf(stderr, "journal: %s: %s\n", what, ckpt_errmsg(ctx));
	exit(1);
}

/* Makes room for more bytes. The region keeps its address, so `journal` stays good. */
static void make_room(ckpt_t *ctx, struct journal *journal, size_t more)
{
	size_t need = sizeof *journal + journal->used + more;
	if (need <= ckpt_region_len(ctx, JOURNAL))
		return;
	if (ckpt_region_grow(ctx, JOURNAL, (need + STEP - 1) / STEP * STEP) < 0)
		die(ctx, "the journal is full");
}

int main(int argc, char **argv)
{
	struct ckpt_options options = CKPT_OPTIONS_INIT;
	options.name = "journal";
	options.flags = CKPT_NO_CODE_POINTERS;
	ckpt_t *ctx;
	if (ckpt_open(&options, &ctx) < 0)
		die(NULL, "cannot open the chain");

	void *region;
	if (ckpt_region(ctx, JOURNAL, JOURNAL_TYPE, STEP, RESERVE, &region) < 0)
		die(ctx, "cannot find the journal");
	struct journal *journal = region;

	if (argc > 1 && strcmp(argv[1], "--print") == 0) {
		fwrite(journal->text, 1, journal->used, stdout);
		return ckpt_close(ctx) < 0;
	}

	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	while ((len = getline(&line, &size, stdin)) > 0) {
		make_room(ctx, journal, len);
		memcpy(journal->text + journal->used, line, len);
		journal->used += len;
		journal->lines++;
		struct ckpt_commit_info info = { .size = sizeof info };
		if (ckpt_commit(ctx, &info) < 0)
			die(ctx, "cannot commit");
		/* A commit is not durable when it returns. */
		if (ckpt_wait(ctx, info.epoch, -1) < 0)
			die(ctx, "cannot save");
		printf("%lu (epoch %llu)\n", journal->lines, (unsigned long long)info.epoch);
		fflush(stdout);
	}
	free(line);
	return ckpt_close(ctx) < 0;
}
