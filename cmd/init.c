/* uvmirror init: pool and folders of a fresh host. */
#include "cmd/cmd.h"

struct init_options {
    struct cmd_common common;
    struct cmd_host host;
};

static const struct cmd_option init_options[] = {
    CMD_HOST_OPTIONS(struct init_options),
    CMD_COMMON_OPTIONS(struct init_options),
    {0},
};

static bool run_init(const void *options, const struct uvm_strings *args, struct uvm_error *err)
{
    const struct init_options *o = options;
    uvm_auto_free char *state = cmd_state_dir(&o->common);
    struct pool_options pool;
    if (!cmd_no_arguments(args, err) || !cmd_pool_options(&o->host, state, &pool, err) ||
        !pool_init(&pool, err))
        return false;
    cmd_print("pool %s is ready; images come with 'uvmirror import BUNDLE'", pool.name);
    cmd_print_json(json_pack("{s:s, s:s, s:s}", "event", "result", "pool", pool.name,
                             "metadata_dir", pool.metadata_dir));
    return true;
}

const struct cmd_command cmd_init = {
    .name = "init",
    .args = "[OPTION...]",
    .summary = "make the pool and the folders on a fresh host",
    .details =
        "Makes what uvtool's package makes, where it is missing: the libvirt pool with its folder "
        "(started, and started again at each boot), the metadata folder, and uvmirror's state "
        "folder. What is there already is left as it is.",
    .options = init_options,
    .options_size = sizeof(struct init_options),
    .run = run_init,
};
