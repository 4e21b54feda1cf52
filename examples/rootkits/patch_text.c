// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * patch_text: writes a jump over the beginning of a function of the kernel.
 */
#include <linux/init.h>
#include <linux/module.h>
#include "trick.h"

static u8 before[6], *place;

static int __init patch_text_init(void)
{
	static const u8 gives_nothing[6] = { 0x31, 0xc0, 0xc3, 0xcc, 0xcc, 0xcc };

	place = find_symbol("version_proc_show");
	if (!place)
		return -ENOENT;
	memcpy(before, place, sizeof(before));
	write_protected(place, gives_nothing, sizeof(gives_nothing));
	return 0;
}

static void __exit patch_text_exit(void)
{
	write_protected(place, before, sizeof(before));
}

module_init(patch_text_init);
module_exit(patch_text_exit);

MODULE_DESCRIPTION("Patches kernel text");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
