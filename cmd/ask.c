/* A question at the terminal: where the next medium is. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/screen.h"

enum { LOOK_MS = 200, ANSWER_MAX = 4096 };

/* One line of standard input, without its end. It is waited for in small steps: Ctrl-C reaches
 * another thread. */
static bool read_answer(const bool *quit, char *answer, struct uvm_error *err)
{
    size_t len = 0;
    while (len + 1 < ANSWER_MAX) {
        struct pollfd wanted = {.fd = STDIN_FILENO, .events = POLLIN};
        if (!uvm_go_on(cmd_observer(), err))
            return false;
        if (__atomic_load_n(quit, __ATOMIC_RELAXED))
            return uvm_fail(err, UVM_INTERRUPTED, "nobody needs the answer any more");
        int ready = poll(&wanted, 1, LOOK_MS);
        if (ready == 0 || (ready < 0 && errno == EINTR))
            continue;
        ssize_t n = read(STDIN_FILENO, answer + len, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return uvm_fail(err, UVM_INTERRUPTED, "no answer");
        if (answer[len] == '\n')
            break;
        len++;
    }
    answer[len] = 0;
    return true;
}

static bool ask_for_medium(void *opaque, const char *what, const bool *quit, char **ret_folder,
                           struct uvm_error *err)
{
    char answer[ANSWER_MAX];
    (void)opaque;
    uvm_auto_free char *question = uvm_format(
        "Insert the medium with %s and press Enter, or name the folder where it is:\n", what);
    cmd_screen_pause();
    cmd_screen_write(stderr, question);
    bool answered = read_answer(quit, answer, err);
    cmd_screen_resume();
    if (!answered)
        return uvm_prefix(err, "waiting for %s", what);
    if (*answer)
        *ret_folder = uvm_strdup(answer);
    return true;
}

struct bundle_ask cmd_ask_for_media(void)
{
    bool somebody = !cmd_ui_json() && isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
    return (struct bundle_ask){.ask = somebody ? ask_for_medium : NULL};
}
