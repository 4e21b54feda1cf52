// SPDX-License-Identifier: GPL-2.0
/* A test that crashes and one that never ends, between two that pass. */
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/module.h>

static int *nowhere;

static void before(struct kunit *test)
{
	KUNIT_EXPECT_NULL(test, nowhere);
}

static void crashes(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, READ_ONCE(*nowhere), 1);
}

static void waits(struct kunit *test)
{
	while (READ_ONCE(nowhere) == NULL)
		msleep(1000);
}

static void after(struct kunit *test)
{
	KUNIT_EXPECT_NULL(test, nowhere);
}

static struct kunit_case crash_cases[] = { KUNIT_CASE(before), KUNIT_CASE(crashes), KUNIT_CASE(waits), KUNIT_CASE(after), {} };
static struct kunit_suite crash = { .name = "crash", .test_cases = crash_cases };

kunit_test_suites(&crash);
MODULE_LICENSE("GPL");
