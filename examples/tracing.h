/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The trace event of tracing.c. The kernel's headers include this file several times, each time to make something else of it. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kobox_tracing

#if !defined(KOBOX_TRACING_H) || defined(TRACE_HEADER_MULTI_READ)
#define KOBOX_TRACING_H

#include <linux/tracepoint.h>

TRACE_EVENT(kobox_fall,
	TP_PROTO(unsigned int centimetres, unsigned int milliseconds),
	TP_ARGS(centimetres, milliseconds),
	TP_STRUCT__entry(
		__field(unsigned int, centimetres)
		__field(unsigned int, milliseconds)
	),
	TP_fast_assign(
		__entry->centimetres = centimetres;
		__entry->milliseconds = milliseconds;
	),
	TP_printk("height=%u cm after %u ms", __entry->centimetres, __entry->milliseconds)
);

#endif

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE tracing
#include <trace/define_trace.h>
