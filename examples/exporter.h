/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What exporter.ko offers to other modules: included by both sides, so that their checksums agree. */
#ifndef KOBOX_EXPORTER_H
#define KOBOX_EXPORTER_H

extern int exporter_calls;

int exporter_add(int a, int b);
int exporter_multiply(int a, int b);
const char *exporter_motto(void);

#endif
