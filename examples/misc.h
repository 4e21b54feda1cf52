/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The ioctl numbers of /dev/kobox_note, for the driver and for programs. */
#ifndef KOBOX_MISC_H
#define KOBOX_MISC_H

#include <linux/ioctl.h>

#define NOTE_LENGTH _IOR('k', 1, unsigned int) /* how many bytes the note has */
#define NOTE_CLEAR _IO('k', 2)
#define NOTE_LIMIT _IOWR('k', 3, unsigned int) /* set the limit, get the old one */

#endif
