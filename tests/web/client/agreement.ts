// The types that are written by hand are those of the modules: compiled, never run.

import * as modules from "./modules/index.js";
import * as declared from "docprogress";

export const theModulesAreAsDeclared: typeof declared = modules;
