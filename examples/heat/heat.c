// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * heat: how heat spreads in a plate, by several threads.
 *
 *     heat [-n SIDE] [-s STEPS] [-k STEPS_PER_COMMIT] [-t THREADS] [-c CRASH] IMAGE
 *
 * The plate is a square of SIDE by SIDE cells, hot at one edge and with a hot spot in the
 * middle. In each step every cell becomes the mean of its neighbours. At the end the plate is written
 * to IMAGE as a grey picture (PGM), and a checksum of all of its bits to stdout.
 *
 * All of its state is a region: the two grids, of which each step reads one and writes the other,
 * and the number of steps done. It commits every k steps and goes on from there when it
 * is started again, to the same result, bit for bit, with any number of threads. With -c it dies
 * after so many commits, in the middle of a step:
 *
 *     ckptctl run --store heat.chain --restart on-failure -- heat -c 3 heat.pgm
 *
 * Worth a look: where the commit is. A thread that wrote while the commit is made could have half
 * of its step in it. (With two grids that step would be done again from the other one; few programs
 * are so forgiving.) So all threads meet at a barrier behind each step, and one of them commits
 * while the others wait at the next barrier. They wait for closing the epoch only: the disk is
 * the library's own thread's business.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckpt.h"

#define PLATE 0x48454154
#define THREADS_MAX 64

/* The region begins with this. Plain data: zeros are a plate that has not begun. */
struct plate {
	uint64_t side;
	uint64_t steps; /* done; the grid steps % 2 has the result */
	uint64_t started;
	uint64_t reserved;
	double cells[]; /* two grids, a row after the other */
};

/* What does not survive: threads, and how to meet. */
static ckpt_t *ctx;
static struct plate *plate;
static pthread_barrier_t barrier;
static uint64_t steps = 2000, steps_per_commit = 100;
static long threads = 4, crash_after = -1;

static void die(const char *what)
{
	fprintf(stderr, "heat: %s: %s\n", what, ckpt_errmsg(ctx));
	exit(1);
}

static double *grid(uint64_t step)
{
	return plate->cells + step % 2 * plate->side * plate->side;
}

static void begin(uint64_t side)
{
	plate->side = side;
	for (uint64_t which = 0; which < 2; which++) {
		double *cells = grid(which);
		/* The edges stay as they are. */
		for (uint64_t column = 0; column < side; column++)
			cells[column] = 100;
		for (uint64_t row = side * 2 / 5; row < side * 3 / 5; row++)
			for (uint64_t column = side * 2 / 5; column < side * 3 / 5; column++)
				cells[row * side + column] = 80;
	}
	plate->started = 1;
}

/* A thread's share of a step: some rows. */
static void spread(uint64_t step, uint64_t first, uint64_t last)
{
	uint64_t side = plate->side;
	const double *from = grid(step);
	double *to = grid(step + 1);
	for (uint64_t row = first; row < last; row++)
		for (uint64_t column = 1; column < side - 1; column++) {
			const double *cell = from + row * side + column;
			to[row * side + column] =
				0.25 * (cell[-1] + cell[1] + cell[-(int64_t)side] + cell[side]);
		}
}

/* Behind a step, while all other threads wait: the safe point. */
static void finish_step(void)
{
	plate->steps++;
	if (plate->steps % steps_per_commit != 0 && plate->steps != steps)
		return;
	if (ckpt_commit(ctx, NULL) < 0)
		die("cannot commit");
}

static void *work(void *argument)
{
	uint64_t thread = (uintptr_t)argument;
	uint64_t rows = plate->side - 2;
	uint64_t first = 1 + rows * thread / threads, last = 1 + rows * (thread + 1) / threads;
	long left = crash_after;
	/* Nobody writes to it but behind the barrier, where nobody reads it. */
	for (uint64_t step = plate->steps; step < steps; step++) {
		spread(step, first, last);
		if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
			finish_step();
		pthread_barrier_wait(&barrier);
		/* One thread dies while the others are in the next step. */
		if (thread == 0 && (step + 1) % steps_per_commit == 0 && --left == 0) {
			ckpt_wait(ctx, 0, -1);
			abort();
		}
	}
	return NULL;
}

static void draw(const char *path)
{
	uint64_t side = plate->side;
	FILE *image = fopen(path, "w");
	if (!image) {
		perror(path);
		exit(1);
	}
	fprintf(image, "P5\n%" PRIu64 " %" PRIu64 "\n255\n", side, side);
	for (uint64_t cell = 0; cell < side * side; cell++)
		fputc((int)(grid(plate->steps)[cell] * 2.55), image);
	if (fclose(image) != 0) {
		perror(path);
		exit(1);
	}
}

/* Of the bits of all cells: FNV-1a. */
static uint64_t checksum(void)
{
	const unsigned char *bytes = (const void *)grid(plate->steps);
	uint64_t sum = 0xcbf29ce484222325;
	for (uint64_t at = 0; at < plate->side * plate->side * sizeof(double); at++)
		sum = (sum ^ bytes[at]) * 0x100000001b3;
	return sum;
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
	char *end;
	uint64_t value = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || value < least || value > most) {
		fprintf(stderr, "heat: %s: not a number from %" PRIu64 " to %" PRIu64 "\n", text, least,
			most);
		exit(2);
	}
	return value;
}

int main(int argc, char **argv)
{
	uint64_t side = 256;
	int option;
	while ((option = getopt(argc, argv, "n:s:k:t:c:")) != -1) {
		switch (option) {
		case 'n': side = number(optarg, 8, 16384); break;
		case 's': steps = number(optarg, 1, UINT64_MAX); break;
		case 'k': steps_per_commit = number(optarg, 1, UINT64_MAX); break;
		case 't': threads = number(optarg, 1, THREADS_MAX); break;
		case 'c': crash_after = number(optarg, 1, INT32_MAX); break;
		default: return 2;
		}
	}
	if (optind != argc - 1) {
		fprintf(stderr, "usage: heat [-n SIDE] [-s STEPS] [-k STEPS_PER_COMMIT] [-t THREADS] "
				"[-c CRASH] IMAGE\n");
		return 2;
	}

	struct ckpt_options options = CKPT_OPTIONS_INIT;
	options.name = "heat";
	options.flags = CKPT_NO_CODE_POINTERS;
	if (ckpt_open(&options, &ctx) < 0)
		die("cannot open the chain");
	size_t len = sizeof *plate + 2 * side * side * sizeof(double);
	void *region;
	if (ckpt_region(ctx, "plate", PLATE, len, 0, &region) < 0)
		die("cannot find the plate");
	plate = region;
	if (!plate->started)
		begin(side);
	else
		fprintf(stderr, "heat: going on behind step %" PRIu64 "\n", plate->steps);
	if (plate->side != side) {
		fprintf(stderr, "heat: the plate has a side of %" PRIu64 ": say so by -n\n",
			plate->side);
		return 1;
	}

	pthread_t workers[THREADS_MAX];
	pthread_barrier_init(&barrier, NULL, threads);
	for (long thread = 1; thread < threads; thread++)
		if (pthread_create(&workers[thread], NULL, work, (void *)thread) != 0) {
			fprintf(stderr, "heat: no more threads: use fewer (-t)\n");
			exit(1);
		}
	work((void *)0);
	for (long thread = 1; thread < threads; thread++)
		pthread_join(workers[thread], NULL);

	/* The result is only told when it is safe. */
	if (ckpt_wait(ctx, 0, -1) < 0)
		die("cannot save");
	draw(argv[optind]);
	printf("%" PRIu64 " steps, checksum %016" PRIx64 "\n", plate->steps, checksum());
	return ckpt_close(ctx) < 0;
}
