/**
 * `process.env`, in which `_X_AMZN_TRACE_ID` changes with each event.
 *
 * Invariant: code that looks into `process.env`, and each child process that gets it, finds the trace of the event that runs.
 * Assigning to the real one (`setenv`) would leak: the C library frees no value that it has held, which is 190 bytes an
 * event. So this one variable is kept here, and everything else stays where it is. Copies that Node.js makes of the real
 * one, for worker threads without an `env` of their own, don't have it.
 */

const NAME = '_X_AMZN_TRACE_ID';

/** Put the variable into `process.env`; returns what sets it, undefined where an event has no trace. */
export function installTrace() {
  let trace = process.env[NAME];
  process.env = new Proxy(process.env, {
    get: (env, name) => (name === NAME ? trace : env[name]),
    has: (env, name) => (name === NAME ? trace !== undefined : name in env),
    set: (env, name, value) => {
      if (name === NAME) trace = String(value);
      else env[name] = value;
      return true;
    },
    deleteProperty: (env, name) => {
      if (name === NAME) trace = undefined;
      return delete env[name];
    },
    ownKeys: (env) => {
      const names = Reflect.ownKeys(env).filter((name) => name !== NAME);
      return trace === undefined ? names : [...names, NAME];
    },
    getOwnPropertyDescriptor: (env, name) => {
      if (name !== NAME) return Reflect.getOwnPropertyDescriptor(env, name);
      return trace === undefined ? undefined : { value: trace, writable: true, enumerable: true, configurable: true };
    },
    defineProperty: (env, name, descriptor) => {
      if (name !== NAME) return Reflect.defineProperty(env, name, descriptor);
      trace = String(descriptor.value);
      return true;
    },
  });
  return (value) => {
    trace = value;
  };
}
