/* The first process of a recording machine: makes the calls of one case and writes down everything that can be seen.
 *
 * It says "ready" on the second serial line and waits for the number of a case there (the machine is saved in between, and
 * restored for every case). /cases/NUMBER has one step a line: fields separated by tabs, each in hex. Answers go to the same
 * serial line, one fact a line: a word, then fields in hex or decimal. tools/record_golden.py writes the one and reads the
 * other. Built with gcc -static.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_FIELDS 16
#define SLOTS 16
#define CALL_SECONDS 4
#define HUNG_MS 6000
/* What the kernel limits to so many lines in five seconds was perhaps said during its boot. */
#define SETTLE_SECONDS 6

struct answer {
	long value;
	int number;
	int done;
	int could_not_open;
	int has_output;
	size_t output_size;
	char output[1 << 20];
};

static FILE *out;
static int kmsg, uevents;
static int slots[SLOTS];
static pid_t background[SLOTS];
static struct answer *background_answer[SLOTS];
static struct answer *shared;
static char *watched[64];
static int watches;

static void say(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vfprintf(out, format, list);
	va_end(list);
}

static void say_hex(const void *data, size_t size)
{
	const unsigned char *bytes = data;
	if (!size)
		fputc('-', out);
	for (size_t i = 0; i < size; i++)
		fprintf(out, "%02x", bytes[i]);
}

static size_t unhex(char *text)
{
	size_t size = 0;
	if (!strcmp(text, "-")) {
		text[0] = 0;
		return 0;
	}
	for (; text[2 * size] && text[2 * size + 1]; size++) {
		char pair[3] = { text[2 * size], text[2 * size + 1], 0 };
		text[size] = (char)strtol(pair, NULL, 16);
	}
	text[size] = 0;
	return size;
}

static char *slurp(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return NULL;
	size_t room = 1 << 16, used = 0;
	char *data = malloc(room + 1);
	for (;;) {
		ssize_t n = read(fd, data + used, room - used);
		if (n <= 0)
			break;
		used += (size_t)n;
		if (used == room)
			data = realloc(data, (room *= 2) + 1);
	}
	close(fd);
	data[used] = 0;
	*size = used;
	return data;
}

static void drop_module_capability(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	syscall(SYS_capget, &header, data);
	data[0].effective &= ~(1u << CAP_SYS_MODULE);
	data[0].permitted &= ~(1u << CAP_SYS_MODULE);
	syscall(SYS_capset, &header, data);
}

static void note(struct answer *a, long value)
{
	a->value = value;
	a->number = value == -1 ? errno : 0;
	a->done = 1;
}

static void note_output(struct answer *a, ssize_t size)
{
	note(a, size);
	a->has_output = 1;
	a->output_size = size > 0 ? (size_t)size : 0;
}

static void special(struct answer *a, const char *action, const char *kind, const char *file, const char *name)
{
	size_t size = 0;
	char *data = *file ? slurp(file, &size) : NULL;
	const char *params = "";
	int fd = -1, ends[2];

	if (!strcmp(kind, "nocap"))
		drop_module_capability();
	if (!strcmp(action, "deletespecial")) {
		note(a, syscall(SYS_delete_module, strcmp(kind, "null") ? name : NULL, O_NONBLOCK));
		return;
	}
	if (!strcmp(action, "initspecial")) {
		void *buffer = strcmp(kind, "nullbuf") ? data : NULL;
		if (!strcmp(kind, "hugelen"))
			size = (size_t)1 << 62;
		if (!strcmp(kind, "nullparam"))
			params = NULL;
		note(a, syscall(SYS_init_module, buffer, size, params));
		return;
	}
	if (!strcmp(kind, "bad"))
		fd = 999;
	else if (!strcmp(kind, "wronly"))
		fd = open(file, O_WRONLY);
	else if (!strcmp(kind, "path"))
		fd = open(file, O_PATH);
	else if (!strcmp(kind, "dir"))
		fd = open("/", O_RDONLY);
	else if (!strcmp(kind, "null"))
		fd = open("/dev/null", O_RDONLY);
	else if (!strcmp(kind, "rdwr"))
		fd = open(file, O_RDWR);
	else if (!strcmp(kind, "pipe"))
		fd = pipe(ends) ? -1 : ends[0];
	else
		fd = open(file, O_RDONLY);
	if (!strcmp(kind, "offset"))
		lseek(fd, 100, SEEK_SET);
	if (!strcmp(kind, "nullparam"))
		params = NULL;
	note(a, syscall(SYS_finit_module, fd, params, 0));
}

static void call(struct answer *a, char **f, size_t *sizes)
{
	const char *action = f[0];

	if (!strcmp(action, "finit_module")) {
		int fd = open(f[1], O_RDONLY | O_CLOEXEC);
		note(a, syscall(SYS_finit_module, fd, f[2], atoi(f[3])));
	} else if (!strcmp(action, "init_module")) {
		size_t size, length;
		char *data = slurp(f[1], &size);
		length = *f[3] ? strtoul(f[3], NULL, 10) : size;
		if (length > size) {
			data = realloc(data, length);
			memset(data + size, 0, length - size);
		}
		note(a, syscall(SYS_init_module, data, length, f[2]));
	} else if (!strcmp(action, "delete_module")) {
		note(a, syscall(SYS_delete_module, f[1], atoi(f[2])));
	} else if (strstr(action, "special")) {
		special(a, action, f[1], f[2], f[3]);
	} else if (!strcmp(action, "read")) {
		int fd = open(f[1], O_RDONLY);
		if (fd < 0) {
			note(a, -1);
			return;
		}
		size_t used = 0;
		ssize_t n;
		while ((n = read(fd, a->output + used, sizeof(a->output) - used)) > 0)
			used += (size_t)n;
		if (n < 0)
			note(a, -1);
		else
			note_output(a, (ssize_t)used);
		close(fd);
	} else if (!strcmp(action, "write")) {
		if (atoi(f[3]) && setuid((uid_t)atoi(f[3])))
			return;
		int fd = open(f[1], O_WRONLY);
		if (fd < 0) {
			note(a, -1);
			a->could_not_open = 1;
			return;
		}
		note(a, write(fd, f[2], sizes[2]));
		close(fd);
	} else if (!strcmp(action, "sh")) {
		int ends[2];
		if (pipe(ends))
			return;
		pid_t pid = fork();
		if (!pid) {
			dup2(ends[1], 1);
			dup2(ends[1], 2);
			close(ends[0]);
			execl("/bin/sh", "sh", "-c", f[1], NULL);
			_exit(127);
		}
		close(ends[1]);
		size_t used = 0;
		ssize_t n;
		int status;
		while ((n = read(ends[0], a->output + used, sizeof(a->output) - used)) > 0)
			used += (size_t)n;
		waitpid(pid, &status, 0);
		note_output(a, (ssize_t)used);
		note(a, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	} else if (!strcmp(action, "sleep")) {
		usleep((useconds_t)atoi(f[1]) * 1000);
		note(a, 0);
	}
}

/* Calls on files that stay open are made by this process itself. */
static int call_on_slot(struct answer *a, char **f, size_t *sizes)
{
	int slot = f[1] ? atoi(f[1]) % SLOTS : 0;

	if (!strcmp(f[0], "open")) {
		slots[slot] = open(f[2], atoi(f[3]));
		note(a, slots[slot] < 0 ? -1 : 0);
	} else if (!strcmp(f[0], "close")) {
		note(a, close(slots[slot]));
	} else if (!strcmp(f[0], "fread")) {
		size_t size = strtoul(f[2], NULL, 10);
		note_output(a, read(slots[slot], a->output, size < sizeof(a->output) ? size : sizeof(a->output)));
	} else if (!strcmp(f[0], "fwrite")) {
		note(a, write(slots[slot], f[2], sizes[2]));
	} else if (!strcmp(f[0], "lseek")) {
		note(a, lseek(slots[slot], atol(f[2]), atoi(f[3])));
	} else if (!strcmp(f[0], "ioctl")) {
		note(a, ioctl(slots[slot], strtoul(f[2], NULL, 10), strtoul(f[3], NULL, 10)));
	} else {
		return 0;
	}
	return 1;
}

static void on_alarm(int number)
{
	(void)number;
}

static pid_t start(struct answer *a, char **f, size_t *sizes)
{
	fflush(out);
	memset(a, 0, offsetof(struct answer, output));
	pid_t pid = fork();
	if (!pid) {
		struct sigaction action = { .sa_handler = on_alarm };
		sigaction(SIGALRM, &action, NULL);
		alarm(CALL_SECONDS);
		prctl(PR_SET_NAME, "kload");
		call(a, f, sizes);
		_exit(0);
	}
	return pid;
}

/* Whether it ended in time. */
static int reap(pid_t pid, int milliseconds, int *status)
{
	for (; milliseconds > 0; milliseconds -= 20) {
		if (waitpid(pid, status, WNOHANG) == pid)
			return 1;
		usleep(20000);
	}
	return waitpid(pid, status, WNOHANG) == pid;
}

static void say_answer(struct answer *a, int ended, int status)
{
	if (!ended)
		say("hung\n");
	else if (WIFSIGNALED(status))
		say("killed %d\n", WTERMSIG(status));
	else if (a->done)
		say("answer %ld %d %d\n", a->value, a->number, a->could_not_open);
	if (a->has_output) {
		say("output ");
		say_hex(a->output, a->output_size);
		say("\n");
	}
}

/* A line that was cut off or left open is shown only when another one follows. */
static void say_log(int wanted)
{
	static const char mark[] = "<7>golden: end of step\n";
	char line[8192];
	ssize_t n;
	int writing = open("/dev/kmsg", O_WRONLY);
	if (writing >= 0 && write(writing, mark, sizeof(mark) - 1) > 0)
		close(writing);
	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		if (n < 0 || !wanted)
			continue;
		say("kmsg ");
		say_hex(line, (size_t)n);
		say("\n");
	}
}

static void say_uevents(int wanted)
{
	char message[8192];
	ssize_t n;
	while ((n = recv(uevents, message, sizeof(message), MSG_DONTWAIT)) > 0) {
		if (!wanted)
			continue;
		say("uevent ");
		say_hex(message, (size_t)n);
		say("\n");
	}
}

static void say_entry(const char *word, const char *path)
{
	struct stat about;
	char content[1 << 16];

	if (lstat(path, &about))
		return;
	if (word) {
		say("%s ", word);
		say_hex(path, strlen(path));
	}
	if (S_ISLNK(about.st_mode)) {
		ssize_t n = readlink(path, content, sizeof(content));
		if (word) {
			say(" link %o ", about.st_mode & 07777);
			say_hex(content, n > 0 ? (size_t)n : 0);
			say("\n");
		}
		return;
	}
	if (S_ISDIR(about.st_mode)) {
		if (word)
			say(" dir %o -\n", about.st_mode & 07777);
		struct dirent **names;
		int count = scandir(path, &names, NULL, alphasort);
		for (int i = 0; i < count; i++) {
			char below[4096];
			if (strcmp(names[i]->d_name, ".") && strcmp(names[i]->d_name, "..")) {
				snprintf(below, sizeof(below), "%s/%s", path, names[i]->d_name);
				say_entry(word, below);
			}
			free(names[i]);
		}
		if (count >= 0)
			free(names);
		return;
	}
	if (!(about.st_mode & 0444)) {
		if (word)
			say(" file %o\n", about.st_mode & 07777);
		return;
	}
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	ssize_t used = fd < 0 ? -1 : 0, n = 0;
	while (fd >= 0 && (n = read(fd, content + used, sizeof(content) - (size_t)used)) > 0)
		used += n;
	int failed = fd < 0 || n < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	if (!word)
		return;
	if (failed) {
		say(" file %o !%d\n", about.st_mode & 07777, failed);
	} else {
		say(" file %o ", about.st_mode & 07777);
		say_hex(content, (size_t)used);
		say("\n");
	}
}

/* Looking may hang for ever behind a module that died: a child looks, and is left behind. */
static void guarded(void (*look)(const char *), const char *argument)
{
	fflush(out);
	pid_t pid = fork();
	int status;
	if (!pid) {
		look(argument);
		fflush(out);
		_exit(0);
	}
	if (!reap(pid, HUNG_MS, &status))
		say("\nlocked %s\n", argument);
}

static void look_at_modules(const char *path)
{
	size_t size = 0;
	char *data = slurp(path, &size);
	say("modules ");
	say_hex(data ? data : "", size);
	say("\n");
}

static void look_at_tree(const char *path)
{
	say_entry("tree", path);
}

static void look_at_watched(const char *path)
{
	say_entry("sysfs", path);
}

static void look_before(const char *path)
{
	say_entry("before", path);
}

static void look_at_kallsyms(const char *module)
{
	size_t size = 0, length = strlen(module);
	char *data = slurp("/proc/kallsyms", &size), *save = NULL;
	for (char *line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *mark = strrchr(line, '[');
		if (!mark || strncmp(mark + 1, module, length) || mark[1 + length] != ']')
			continue;
		say("symbol ");
		say_hex(line, strlen(line));
		say("\n");
	}
}

static void say_taint(const char *word)
{
	size_t size;
	char *data = slurp("/proc/sys/kernel/tainted", &size);
	say("%s %ld\n", word, data ? atol(data) : -1L);
	free(data);
}

static void step(char **f, size_t *sizes, int number)
{
	int status = 0, slot, ended = 1;

	say_log(0);
	say_uevents(0);
	say("step %d\n", number);
	say_taint("tainted_before");
	for (int i = 0; number > 1 && i < watches; i++)
		guarded(look_before, watched[i]);
	memset(shared, 0, offsetof(struct answer, output));
	if (!strcmp(f[0], "tree")) {
		guarded(look_at_tree, f[1]);
		note(shared, 0);
	} else if (!strcmp(f[0], "kallsyms")) {
		look_at_kallsyms(f[1]);
		note(shared, 0);
	} else if (!strcmp(f[0], "bg")) {
		slot = atoi(f[1]) % SLOTS;
		background_answer[slot] =
			mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		background[slot] = start(background_answer[slot], f + 2, sizes + 2);
		note(shared, 0);
	} else if (!strcmp(f[0], "bgwait")) {
		slot = atoi(f[1]) % SLOTS;
		ended = reap(background[slot], atoi(f[2]), &status);
		*shared = *background_answer[slot];
	} else if (!call_on_slot(shared, f, sizes)) {
		ended = reap(start(shared, f, sizes), HUNG_MS, &status);
	}
	say_answer(shared, ended, status);
	if (!strcmp(f[0], "bg")) {
		say_taint("tainted_after");
		say("end\n");
		fflush(out);
		return;
	}
	say_uevents(1);
	guarded(look_at_modules, "/proc/modules");
	for (int i = 0; i < watches; i++)
		guarded(look_at_watched, watched[i]);
	say_taint("tainted_after");
	say_log(1);
	say("end\n");
	fflush(out);
}

/* The number comes as "#NUMBER" in a line of its own, perhaps several times, the first one perhaps torn. */
static void read_case(int line_in, char *path, size_t size)
{
	static const char folder[] = "/cases/";
	size_t used = 0;
	char next;

	strcpy(path, folder);
	for (;;) {
		if (read(line_in, &next, 1) != 1) {
			usleep(10000);
		} else if (next == '#') {
			used = sizeof(folder) - 1;
		} else if (used && next == '\n') {
			path[used] = 0;
			return;
		} else if (used && used + 1 < size) {
			path[used++] = next;
		}
	}
}

int main(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	struct termios raw;
	size_t size;
	int number = 0;

	mount("none", "/proc", "proc", 0, NULL);
	mount("none", "/sys", "sysfs", 0, NULL);
	mount("none", "/dev", "devtmpfs", 0, NULL);
	mount("none", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("none", "/tmp", "tmpfs", 0, NULL);
	prctl(PR_SET_NAME, "kload");
	int line_in = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
	out = line_in < 0 ? NULL : fdopen(line_in, "w");
	if (!out)
		reboot(RB_POWER_OFF);
	if (!tcgetattr(fileno(out), &raw)) {
		cfmakeraw(&raw);
		raw.c_cflag |= CLOCAL | CREAD;
		tcsetattr(fileno(out), TCSANOW, &raw);
	}
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	uevents = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
	bind(uevents, (struct sockaddr *)&address, sizeof(address));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	sleep(SETTLE_SECONDS);
	say("ready\n");
	fflush(out);
	char path[64];
	read_case(line_in, path, sizeof(path));

	char *script = slurp(path, &size), *save_line = NULL;
	for (char *line = strtok_r(script, "\n", &save_line); line; line = strtok_r(NULL, "\n", &save_line)) {
		char *fields[MAX_FIELDS + 1] = { 0 }, *save = NULL;
		size_t sizes[MAX_FIELDS + 1] = { 0 };
		int count = 0;
		for (char *word = strtok_r(line, "\t", &save); word && count < MAX_FIELDS; word = strtok_r(NULL, "\t", &save)) {
			sizes[count] = unhex(word);
			fields[count++] = word;
		}
		if (count == 2 && !strcmp(fields[0], "watch"))
			watched[watches++] = fields[1];
		else if (count)
			step(fields, sizes, ++number);
	}
	say("done\n");
	fflush(out);
	tcdrain(fileno(out));
	reboot(RB_POWER_OFF);
	return 0;
}
