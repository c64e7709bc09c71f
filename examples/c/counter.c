// SPDX-License-Identifier: Apache-2.0 OR MIT
/* counter: counts to a million. Kill it and start it again: it goes on. */
#include <stdio.h>
#include "ckpt.h"

int main(void)
{
	ckpt_t *ctx;
	if (ckpt_open(NULL, &ctx) < 0)	/* restores the newest commit, if there is one */
		return fprintf(stderr, "%s\n", ckpt_errmsg(NULL)), 1;
	long *counter = ckpt_root(ctx);
	if (!counter)
		ckpt_set_root(ctx, counter = ckpt_calloc(ctx, 1, sizeof *counter));
	while (++*counter < 1000000)
		if (*counter % 1000 == 0 && ckpt_commit(ctx, NULL) == 0 && ckpt_wait(ctx, 0, -1) == 0)
			printf("%ld is safe\n", *counter);
}
