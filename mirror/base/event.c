/* Events: how libraries speak to the one who watches. */
#include "mirror/base/base.h"

static void emit(const struct uvm_observer *o, const struct uvm_event *event)
{
    if (o && o->event)
        o->event(o->opaque, event);
}

void uvm_progress(const struct uvm_observer *o, const char *step, const char *subject,
                  uint64_t done, uint64_t total)
{
    emit(o, &(struct uvm_event){.kind = UVM_EVENT_PROGRESS,
                                .step = step,
                                .subject = subject,
                                .done = done,
                                .total = total});
}

__attribute__((format(printf, 3, 0))) static void
emit_text(const struct uvm_observer *o, struct uvm_event event, const char *format, va_list args)
{
    uvm_auto_free char *text = format ? uvm_vformat(format, args) : NULL;
    event.text = text;
    emit(o, &event);
}

void uvm_done(const struct uvm_observer *o, const char *step, const char *subject,
              const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit_text(o, (struct uvm_event){.kind = UVM_EVENT_DONE, .step = step, .subject = subject},
              format, args);
    va_end(args);
}

void uvm_step_failed(const struct uvm_observer *o, const char *step, const char *subject)
{
    emit(o, &(struct uvm_event){.kind = UVM_EVENT_FAILED, .step = step, .subject = subject});
}

void uvm_notice(const struct uvm_observer *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit_text(o, (struct uvm_event){.kind = UVM_EVENT_NOTICE}, format, args);
    va_end(args);
}

void uvm_warning(const struct uvm_observer *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit_text(o, (struct uvm_event){.kind = UVM_EVENT_WARNING}, format, args);
    va_end(args);
}

bool uvm_go_on(const struct uvm_observer *o, struct uvm_error *err)
{
    if (o && o->stop && atomic_load(o->stop))
        return uvm_fail(err, UVM_INTERRUPTED, "interrupted");
    return true;
}
