// SPDX-License-Identifier: GPL-2.0
/* Every way in which a KUnit test can end, for kobox's KUnit and the kernel's own to be compared. */
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>

static int answer = 42;
static char *word = "lion";

static void passes(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, answer, 42);
	KUNIT_ASSERT_NOT_NULL(test, word);
}

static void fails_and_goes_on(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, answer, 43);
	KUNIT_EXPECT_NE(test, answer, 42);
	KUNIT_EXPECT_LT(test, answer * 2L, -7L);
	KUNIT_EXPECT_TRUE(test, answer == 7);
	KUNIT_EXPECT_FALSE(test, answer == 42);
	KUNIT_EXPECT_STREQ(test, word, "tiger");
	KUNIT_EXPECT_STRNEQ(test, word, "lion");
	KUNIT_EXPECT_PTR_EQ(test, (void *)0x10, (void *)0x20);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, (void *)NULL);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, ERR_PTR(-ENOENT));
	KUNIT_EXPECT_EQ_MSG(test, answer, 1, "with %s and %d, %d, %d", word, 1, 2, 3);
	KUNIT_FAIL(test, "by hand: %s", word);
	kunit_info(test, "still here\n");
}

static void fails_and_ends(struct kunit *test)
{
	KUNIT_ASSERT_EQ_MSG(test, answer, 0, "the answer is %d", answer);
	kunit_err(test, "never said\n");
}

static void skips(struct kunit *test)
{
	kunit_skip(test, "not on %s", "Mondays");
	KUNIT_FAIL(test, "never said");
}

static void marked_skipped(struct kunit *test)
{
	kunit_mark_skipped(test, "it went on");
	kunit_info(test, "went on\n");
}

static const int numbers[] = { 1, 2, 3 };

static void describe(const int *number, char *text)
{
	snprintf(text, KUNIT_PARAM_DESC_SIZE, "number %d", *number);
}

KUNIT_ARRAY_PARAM(number, numbers, describe);
KUNIT_ARRAY_PARAM(nameless, numbers, NULL);

static void is_odd(struct kunit *test)
{
	const int *number = test->param_value;

	KUNIT_EXPECT_EQ(test, *number & 1, 1);
}

static void is_small(struct kunit *test)
{
	const int *number = test->param_value;

	KUNIT_EXPECT_LE(test, *number, 3);
}


static void forget(struct kunit_resource *resource)
{
	pr_info("story: freed %s\n", (const char *)resource->data);
}

static void owns(struct kunit *test)
{
	static struct kunit_resource first, second;
	struct kunit_resource *found;
	char *memory = kunit_kzalloc(test, 100, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, memory);
	KUNIT_EXPECT_EQ(test, memory[99], 0);
	KUNIT_EXPECT_EQ(test, kunit_add_named_resource(test, NULL, forget, &first, "one", "first"), 0);
	KUNIT_EXPECT_EQ(test, kunit_add_named_resource(test, NULL, forget, &second, "two", "second"), 0);
	KUNIT_EXPECT_EQ(test, kunit_add_named_resource(test, NULL, forget, &second, "two", "again"), -EEXIST);
	found = kunit_find_named_resource(test, "one");
	KUNIT_ASSERT_NOT_NULL(test, found);
	KUNIT_EXPECT_STREQ(test, (char *)found->data, "first");
	kunit_put_resource(found);
	KUNIT_EXPECT_EQ(test, kunit_destroy_named_resource(test, "two"), 0);
	KUNIT_EXPECT_EQ(test, kunit_destroy_named_resource(test, "two"), -ENOENT);
	kunit_kfree(test, memory);
}

static int begin(struct kunit *test)
{
	test->priv = word;
	return 0;
}

static void end(struct kunit *test)
{
	if (test->priv != word)
		pr_info("story: priv is lost\n");
}

static struct kunit_case story_cases[] = {
	KUNIT_CASE(passes),
	KUNIT_CASE(fails_and_goes_on),
	KUNIT_CASE(fails_and_ends),
	KUNIT_CASE(skips),
	KUNIT_CASE(marked_skipped),
	KUNIT_CASE_PARAM(is_odd, number_gen_params),
	KUNIT_CASE_PARAM(is_small, nameless_gen_params),
	KUNIT_CASE(owns),
	{}
};

static struct kunit_suite story = {
	.name = "story", .init = begin, .exit = end, .test_cases = story_cases,
};

static int refuse(struct kunit *test)
{
	return -EIO;
}

static struct kunit_case refused_cases[] = { KUNIT_CASE(passes), {} };
static struct kunit_suite refused = { .name = "refused", .init = refuse, .test_cases = refused_cases };

static int suite_refuses(struct kunit_suite *suite)
{
	return -ENODEV;
}

static struct kunit_suite unstarted = {
	.name = "unstarted", .suite_init = suite_refuses, .test_cases = refused_cases,
};

static struct kunit_case skipped_cases[] = { KUNIT_CASE(skips), {} };
static struct kunit_suite skipped = { .name = "skipped", .test_cases = skipped_cases };

kunit_test_suites(&story, &refused, &unstarted, &skipped);
MODULE_LICENSE("GPL");
