-- How much of each model did the tracer understand?
SELECT name AS graph, wiring, n_operations AS operations, n_operations_understood AS understood,
       n_parameters AS parameters, n_parameters_understood AS parameters_understood
FROM graphs
ORDER BY id
