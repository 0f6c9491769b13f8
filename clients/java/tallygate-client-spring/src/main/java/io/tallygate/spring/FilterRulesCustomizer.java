package io.tallygate.spring;

/** A bean that says how requests are charged, beyond what properties can say. */
@FunctionalInterface
public interface FilterRulesCustomizer {
  /** Changes the rules that the properties have made. */
  void customize(FilterRules rules);
}
