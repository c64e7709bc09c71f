// SPDX-License-Identifier: GPL-2.0-only
/*
 * Up to 64 neighbouring entries of one page table, whose lock the caller holds. Bit n of
 * a set stands for pte[n]. For mm/table.rs, which cannot inline what the kernel has for
 * single entries.
 */
#include <linux/bitops.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

#include "ptes.h"

/* All between the first and the last of them lie in the same table, too. */
u64 ckpt_ptes_dirty(pte_t *pte, u64 of)
{
	unsigned int first = __ffs64(of), end = fls64(of), n;
	u64 dirty = 0;

	for (n = first; n < end; n++) {
		if (unlikely(pte_dirty(ptep_get(pte + n))))
			dirty |= BIT_ULL(n);
	}
	dirty &= of;
	/* A swap entry or a marker can look dirty. */
	for (of = dirty; of; of &= of - 1) {
		n = __ffs64(of);
		if (!pte_present(ptep_get(pte + n)))
			dirty &= ~BIT_ULL(n);
	}
	return dirty;
}

u64 ckpt_ptes_clean(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of)
{
	u64 dirty = ckpt_ptes_dirty(pte, of);

	for (of = dirty; of; of &= of - 1) {
		unsigned int n = __ffs64(of);
		unsigned long at = addr + n * PAGE_SIZE;
		/* The processor may set bits until the entry is taken out. */
		pte_t entry = ptep_modify_prot_start(vma, at, pte + n);

		ptep_modify_prot_commit(vma, at, pte + n, entry, pte_mkclean(entry));
	}
	return dirty;
}

u64 ckpt_ptes_arm(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of,
		  bool *changed)
{
	u64 dirty = 0;

	for (; of; of &= of - 1) {
		unsigned int n = __ffs64(of);
		unsigned long at = addr + n * PAGE_SIZE;
		pte_t entry = ptep_get(pte + n);

		if (!pte_present(entry) || !(pte_write(entry) || pte_dirty(entry)))
			continue;
		entry = ptep_modify_prot_start(vma, at, pte + n);
		if (pte_dirty(entry))
			dirty |= BIT_ULL(n);
		ptep_modify_prot_commit(vma, at, pte + n, entry,
					pte_mkclean(pte_wrprotect(entry)));
		*changed = true;
	}
	return dirty;
}

u64 ckpt_ptes_open(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, u64 of)
{
	u64 open = 0;

	for (; of; of &= of - 1) {
		unsigned int n = __ffs64(of);
		unsigned long at = addr + n * PAGE_SIZE;
		pte_t entry = ptep_get(pte + n);

		if (!pte_present(entry))
			continue;
		if (!pte_write(entry)) {
			entry = ptep_modify_prot_start(vma, at, pte + n);
			ptep_modify_prot_commit(vma, at, pte + n, entry,
						pte_mkwrite_novma(entry));
		}
		open |= BIT_ULL(n);
	}
	return open;
}
